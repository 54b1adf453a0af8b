"""``Value``: the base class of schedules and back-offs."""

from __future__ import annotations

from typing import NoReturn


class Value:
    """An immutable object that is equal to others of its class with the same attributes.

    A constructor passes the attributes by name. ``@dataclass`` would generate and compile these
    methods for each class at each start of each process.
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
