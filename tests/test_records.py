"""The stand-in for `dataclasses` does what `dataclasses` does; this asks both the same."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import pytest
from pydantic import TypeAdapter, ValidationError

from reconciler.base import records

T = TypeVar("T")


class Plain:
    """Fields with and without a default, and what is no field."""

    level: ClassVar[int] = 3
    name: str
    number: int = 0
    alias: str = records.field(default="x", metadata={"written": False})
    many: tuple[str, ...] = records.field(default_factory=tuple)

    @property
    def both(self) -> str:
        return self.name + self.alias


class StandardPlain:
    __doc__ = Plain.__doc__
    level: ClassVar[int] = 3
    name: str
    number: int = 0
    alias: str = dataclasses.field(default="x", metadata={"written": False})
    many: tuple[str, ...] = dataclasses.field(default_factory=tuple)
    both = Plain.both


StandardPlain.__name__ = StandardPlain.__qualname__ = "Plain"
Standard: Any = dataclasses.dataclass(frozen=True, slots=True, order=True)(StandardPlain)
Ours: Any = records.dataclass(frozen=True, slots=True, order=True)(Plain)
Plain = Ours  # type: ignore[misc]  # Under its own name, for pickle.


@records.dataclass(frozen=True, slots=True)
class Nothing:
    """No field at all."""


@records.dataclass(slots=True)
class Mutable:
    """May be changed, and has therefore no hash."""

    value: list[int] = records.field(default_factory=list)


@records.dataclass(slots=True, eq=False)
class Own:
    """Is equal to nothing else."""

    value: int


@records.dataclass(frozen=True, slots=True)
class Box(Generic[T]):
    """Holds anything, and says nothing of it."""

    content: T

    def __repr__(self) -> str:
        return "Box(…)"


@pytest.fixture(params=["ours", "standard"])
def made(request: pytest.FixtureRequest) -> Any:
    return Ours if request.param == "ours" else Standard


def test_values_come_by_position_and_by_name(made: Any) -> None:
    values = ("a", 1, "b", ("c",))
    one = made(*values)
    assert one == made("a", many=("c",), alias="b", number=1)
    assert (one.name, one.number, one.alias, one.many) == values
    assert one.both == "ab"
    assert made("a") == made(name="a") == made("a", 0, "x", ())
    assert repr(one) == "Plain(name='a', number=1, alias='b', many=('c',))"
    assert made.level == one.level == 3


@pytest.mark.parametrize(
    "call",
    [
        lambda made: made(),
        lambda made: made(number=1),
        lambda made: made("a", 1, "b", (), 5),
        lambda made: made("a", name="b"),
        lambda made: made("a", nothing=1),
        lambda made: made("a", 1, "b", (), many=()),
    ],
)
def test_wrong_values_are_refused(made: Any, call: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        call(made)


def test_it_compares_and_hashes_by_value(made: Any) -> None:
    assert made("a") != made("b")
    assert len({made("a"), made("a", 0), made("b")}) == 2
    assert sorted([made("b"), made("a", 2), made("a", 1)]) == [
        made("a", 1),
        made("a", 2),
        made("b"),
    ]
    assert made("b") > made("a") >= made("a")
    assert made("a") <= made("a")
    assert made("a") != ("a", 0, "x", ())
    with pytest.raises(TypeError):
        made("a") < ("a",)  # noqa: B015


def test_another_class_with_the_same_values_is_not_equal() -> None:
    assert Ours("a") != Standard("a")
    assert Nothing() == Nothing()
    assert {Nothing(): 1}[Nothing()] == 1
    assert Box(None) != Mutable(None)  # type: ignore[arg-type]


def test_it_is_frozen(made: Any) -> None:
    one = made("a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "b"
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.name
    # Where it is both frozen and has slots, some versions of Python trip over themselves.
    with pytest.raises(AttributeError if made is Ours else (AttributeError, TypeError)):
        one.other = 1
    assert one.name == "a"
    assert not hasattr(one, "__dict__")


def test_what_is_not_frozen_can_be_changed_and_has_no_hash() -> None:
    one, other = Mutable(), Mutable()
    one.value.append(1)
    assert (one.value, other.value) == ([1], [])
    one.value = [2]
    assert one == Mutable([2])
    with pytest.raises(TypeError):
        hash(one)


def test_without_eq_each_is_only_itself() -> None:
    one = Own(1)
    assert one != Own(1)
    assert {one: "a"}[one] == "a"
    one.value = 2
    assert one.value == 2


def test_it_is_copied_and_sent_to_another_process(made: Any) -> None:
    one = Ours("a", 1)
    assert pickle.loads(pickle.dumps(one)) == copy.copy(one) == copy.deepcopy(one) == one


@pytest.mark.parametrize("replace", [records.replace, dataclasses.replace])
def test_another_one_with_other_values(made: Any, replace: Callable[..., Any]) -> None:
    assert replace(made("a", 1), number=2, many=("x",)) == made("a", 2, "x", ("x",))
    with pytest.raises(TypeError):
        replace(made("a"), nothing=1)


def test_many_are_made_as_few_are() -> None:
    """A class of which there are many has its own `__init__`, which takes what the other does."""

    class Point:
        x: int
        y: int = 2
        word: str = records.field(default="w", metadata={"written": False})

    made: Any = records.dataclass(frozen=True, slots=True)(Point)
    few = [made(1), made(1, 3), made(1, word="v"), made(y=4, x=5)]
    before = made.__init__
    many = [made(number) for number in range(records._MANY)]
    assert made.__init__ is not before
    assert [made(1), made(1, 3), made(1, word="v"), made(y=4, x=5)] == few
    assert many[7] == made(7) and many[7].word == "w"
    assert records.replace(many[7], y=9) == made(7, 9)
    for wrong in ((), (1, 2, "w", 4)):
        with pytest.raises(TypeError):
            made(*wrong)
    with pytest.raises(TypeError):
        made(1, z=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        many[0].x = 3

    # One that makes a new value each time, or has an `__init__` of its own, keeps what it has.
    first = Mutable()
    for _ in range(records._MANY + 1):
        last = Mutable()
    assert last == first and last.value is not first.value


def test_a_loop_has_the_methods_of_all_that_acting_takes_at_hand(free: None) -> None:
    words = (
        "import sys; from reconciler.watchdog.preload import preload; preload(); "
        "from reconciler.base.records import _init; "
        "from reconciler.host.processes import Identity; "
        "print(Identity.__init__ is _init, Identity(5, 7) == Identity(pid=7, start=5), "
        "'reconciler.undo.journal' in sys.modules, 'reconciler.undo.process' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True", "True", "True"], done.stderr


def test_dataclasses_takes_it_for_one_of_its_own() -> None:
    assert dataclasses.is_dataclass(Ours)
    assert dataclasses.is_dataclass(Ours("a"))
    for fields in (records.fields, dataclasses.fields):
        found: Any = [fields(Ours), fields(Ours("a")), fields(Standard)]
        told = [
            [(f.name, f.type, f.default, f.default_factory, dict(f.metadata)) for f in some]
            for some in found
        ]
        assert told[0] == told[1] == told[2]
    for one in (Ours, Ours("a"), Standard, Standard("a")):
        assert records.names(one) == ("name", "number", "alias", "many")
    assert dataclasses.asdict(Ours("a")) == dataclasses.asdict(Standard("a"))
    for name in ("__slots__", "__match_args__", "__doc__"):
        assert getattr(Ours, name) == getattr(Standard, name)
    assert repr(Ours.__dataclass_params__) == repr(Standard.__dataclass_params__)
    assert not Mutable.__dataclass_params__.frozen  # type: ignore[attr-defined]


def test_what_its_fields_were_made_with_is_told_alike() -> None:
    ours, standard = (
        {name: {"metadata": {}, **one} for name, one in records.options(cls).items()}
        for cls in (Ours, Standard)
    )
    assert ours == standard
    assert ours["name"] == {"metadata": {}}
    assert ours["alias"] == {"default": "x", "metadata": {"written": False}}
    assert ours["many"]["default_factory"] is tuple


def test_pydantic_guards_it(made: Any) -> None:
    adapter = TypeAdapter(made)
    assert adapter.validate_python({"name": "a", "number": "7"}) == made("a", 7)
    with pytest.raises(ValidationError):
        adapter.validate_python({"name": "a", "number": "seven"})
    with pytest.raises(ValidationError):
        adapter.validate_python({})


def test_methods_of_its_own_stay() -> None:
    assert repr(Box("secret")) == "Box(…)"
    assert Box[str]("a") == Box("a")


def test_what_it_does_not_know_is_refused() -> None:
    with pytest.raises(TypeError):
        records.dataclass(frozen=True, slots=True)(type("Child", (Nothing,), {}))
    with pytest.raises(TypeError):
        records.field(compare=False)


def test_making_one_loads_neither_dataclasses_nor_inspect(free: None) -> None:
    code = (
        "import sys; from reconciler.core.claims import Key; "
        "from reconciler.base.records import replace; replace(Key('a', 'b'), sort='c'); "
        "sys.exit({'dataclasses', 'inspect'} & sys.modules.keys() != set())"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
