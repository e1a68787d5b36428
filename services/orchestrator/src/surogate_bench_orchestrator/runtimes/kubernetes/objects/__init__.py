"""The objects of tasks, as they are submitted: Jobs, Deployments, Services, and what is in their pods. Pure."""
