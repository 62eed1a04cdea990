"""What a message may show of a value: all of it, unless it came from the environment. Pure."""

from __future__ import annotations

from reconciler.config.nodes import Map, Node, Rendered, Text, texts


def shown(text: Text) -> str:
    """``text`` for a message: its template where the value came from the environment."""
    return text.source if isinstance(text, Rendered) and text.secret else str(text)


def hidden(node: Node, message: str) -> str:
    """``message``, unless it is about a value that must not be shown."""
    for text in texts(node):
        if isinstance(text, Rendered) and text.secret:
            return (
                f"what {text.source} gives is not valid here (the value is not shown, since it "
                "comes from the environment)"
            )
    return message


def censored(message: str, body: Map) -> str:
    """``message`` of a kind about ``body``, without any value that must not be shown."""
    for text in texts(body):
        if isinstance(text, Rendered) and text.secret and text:
            message = message.replace(text, text.source)
    return message
