"""What requests to vLLM say of the tokens at the beginning and the end of a sequence."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundaries:
    """Where a sequence begins and ends, as in training."""

    special_tokens: bool = False
    """Whether vLLM's tokenizer adds its special tokens to a prompt."""
    ends: tuple[int, ...] | None = None
    """Tokens at which answers end if the tokenizer has no end-of-text token; None if it has one."""

    def payload(self) -> Mapping[str, object]:
        """Return fields of a request for completions.

        vLLM ends answers at the end of text of the model's configuration too, which may be an ordinary token where the
        tokenizer has none: so it is ignored.
        """
        ending = {} if self.ends is None else {"ignore_eos": True, "stop_token_ids": list(self.ends)}
        return {"add_special_tokens": self.special_tokens, **ending}
