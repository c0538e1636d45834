"""The HTTP server: OpenAI's and Anthropic's APIs on top of `AsyncLLM`."""
from zonda.server.app import create_app
from zonda.server.listen import serve

__all__ = ["create_app", "serve"]
