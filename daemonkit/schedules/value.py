"""What a schedule and a back-off are: values."""

from __future__ import annotations

from typing import NoReturn


class Value:
    """Equal to what holds the same and is of the same class; hashable, printable, unchangeable.

    A constructor hands over what it holds, by name. ``@dataclass`` would write these methods for
    each class, and compile them, at each start of each process.
    """

    def __init__(self, **held: object) -> None:
        vars(self).update(held)

    def __repr__(self) -> str:
        held = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__qualname__}({held})"

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def __setattr__(self, name: str, _: object) -> NoReturn:
        raise AttributeError(f"cannot change {name} of {self!r}: make another one")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"cannot take {name} from {self!r}: make another one")
