"""``Value``: what is true of all its subclasses."""

from __future__ import annotations

import copy
import pickle

import pytest

from daemonkit import Backoff, Cron, Every, Poll
from daemonkit.schedules.every import Aligned
from daemonkit.schedules.value import Value

VALUES = [Every(30), Poll(5), Cron("0 3 * * *", timezone="Europe/Berlin"), Backoff(cap=5)]
each_value = pytest.mark.parametrize("value", VALUES, ids=repr)


@each_value
def test_a_value_is_equal_to_its_copies_and_has_their_hash(value: Value) -> None:
    for again in (copy.copy(value), copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert again == value
        assert hash(again) == hash(value)


def test_values_of_different_classes_differ_even_with_the_same_attributes() -> None:
    assert Every(60) != Aligned(60)
    assert len({Every(60), Aligned(60), Every(minutes=1)}) == 2


@each_value
def test_the_repr_of_a_value_recreates_it(value: Value) -> None:
    assert eval(repr(value)) == value


@each_value
def test_a_value_cannot_be_changed(value: Value) -> None:
    name = next(iter(vars(value)))
    with pytest.raises(AttributeError, match=f"cannot change {name} of"):
        setattr(value, name, 1)
    with pytest.raises(AttributeError, match=f"cannot take {name} from"):
        delattr(value, name)
    with pytest.raises(AttributeError, match="cannot change extra of"):
        setattr(value, "extra", 1)  # noqa: B010  mypy knows that there is none
