"""Reading of local data files: decoding, formats, and the detection of shapes. Free of torch and of ``datasets``."""
