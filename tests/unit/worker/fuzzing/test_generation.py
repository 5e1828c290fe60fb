import os
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing_subjects import fails_above_a_thousand

from fuzzfarm_worker.fuzzing import generation, subject

PRINT_EXAMPLES = """
import sys
sys.path.insert(0, {folder!r})
from fuzzfarm_worker.fuzzing import generation, subject
{imports}
generation.pin_constants()
loaded = subject.load("fuzzing_subjects:varied", None)
for index in range(120):
    data = loaded.generator.at(7, index)
    source = loaded.generator.source(data, "varied", loaded.bind)
    print(generation.encoded(data), ascii(source) if {sources} else "")
"""


def examples_in_another_interpreter(imports: str, hash_seed: str, folder: Path, *, sources: bool = True) -> str:
    numbers, texts = [n * 7919 for n in range(200)], [f"constant {n}" for n in range(200)]
    (folder / "many_constants.py").write_text(f"NUMBERS = {numbers}\nTEXTS = {texts}\n")
    code = PRINT_EXAMPLES.format(folder=str(Path(__file__).parent), imports=imports, sources=sources)
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=50
    ).stdout


def test_an_address_gives_the_same_example_with_other_imports(tmp_path: Path) -> None:
    one = examples_in_another_interpreter("", "0", tmp_path)
    other = examples_in_another_interpreter("import json, many_constants", "0", tmp_path)
    assert one.count("\n") == 120
    assert one == other


def test_an_address_gives_the_same_choices_with_another_hash_seed(tmp_path: Path) -> None:
    # The source may differ: a set is printed in the order of its hashes. Children share one hash seed.
    one, other = (examples_in_another_interpreter("", seed, tmp_path, sources=False) for seed in ("1", "2"))
    assert one == other


def loaded(name: str) -> subject.Subject:
    return subject.load(f"fuzzing_subjects:{name}", None)


def test_stored_choices_replay_the_example_without_its_address() -> None:
    varied = loaded("varied")
    for index in range(30):
        data = varied.generator.at(3, index)
        source = varied.generator.source(data, "varied", varied.bind)
        again = varied.generator.stored(generation.encoded(data))
        assert varied.generator.source(again, "varied", varied.bind) == source


def test_another_seed_gives_other_examples() -> None:
    varied = loaded("varied")
    sources = [varied.generator.source(varied.generator.at(seed, 5), "varied", varied.bind) for seed in (1, 2)]
    assert sources[0] != sources[1]


def test_damaged_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="no encoded choices"):
        loaded("varied").generator.stored(b"\xff\xff\xff")


def test_an_example_rejected_by_assume_is_invalid_and_no_failure() -> None:
    case = loaded("test_with_everything")
    data = case.generator.at(0, 3)

    def reject(_drawn: generation.Drawn) -> None:
        from hypothesis import assume

        assume(False)

    with pytest.raises(generation.Invalid):
        case.generator.run(data, reject)


def test_shrinking_finds_the_smallest_failure() -> None:
    target = loaded("fails_above_a_thousand")
    data = next(data for index in range(200) if fails(data := target.generator.at(0, index), target))
    smallest = target.generator.shrink(
        generation.encoded(data),
        target.call_drawn,
        lambda exc: isinstance(exc, AssertionError),
        proceed=lambda: True,
        budget_s=10,
    )
    assert target.generator.source(target.generator.stored(smallest), "f", target.bind) == "f(number=1001)"


def fails(data: object, target: subject.Subject) -> bool:
    assert target.function is fails_above_a_thousand
    try:
        target.generator.run(data, target.call_drawn)  # type: ignore[arg-type]
    except AssertionError:
        return True
    return False


def test_shrinking_ends_when_told_to_and_keeps_what_it_has() -> None:
    target = loaded("fails_above_a_thousand")
    data = next(data for index in range(200) if fails(data := target.generator.at(0, index), target))
    choices = generation.encoded(data)
    asked: list[int] = []

    def proceed() -> bool:
        asked.append(1)
        return len(asked) < 3

    shrunk = target.generator.shrink(choices, target.call_drawn, lambda _: True, proceed=proceed, budget_s=10)
    assert len(asked) == 3
    assert len(shrunk) <= len(choices)


def test_examples_that_a_test_lists_come_in_the_order_in_which_they_are_written() -> None:
    explicit = loaded("test_with_everything").explicit
    assert [given.kwargs["values"] for given in explicit] == [[], [9] * 9]
    assert explicit[0].raises
    assert not explicit[1].raises


def test_fingerprints_tell_examples_apart_that_compare_equal() -> None:
    target = loaded("varied")
    zero, minus_zero, false = (
        generation.fingerprint(drawn) for drawn in (_with_choices(target, choice) for choice in (0.0, -0.0, False))
    )
    assert len({zero, minus_zero, false}) == 3


def _with_choices(target: subject.Subject, choice: object) -> object:
    class Data:
        choices = (choice,)

    return Data()


def test_only_one_module_uses_internals_of_hypothesis() -> None:
    internals = ("hypothesis.internal", "hypothesis._", "hypothesis.core", "hypothesis.vendor", "hypothesis.control")
    files = Path(generation.__file__).parent.glob("*.py")
    users = [file.name for file in files if any(name in file.read_text() for name in internals)]
    assert users == ["generation.py"]


@pytest.mark.parametrize("target", ["varied", "test_with_everything", "takes_a_dataclass"])
def test_a_lean_example_is_the_one_that_hypothesis_would_draw(target: str) -> None:
    """What is left out changes nothing of what is drawn."""
    generator = loaded(target).generator
    for index in range(100):
        lean = generator.at(5, index)
        assert isinstance(lean, generation.LeanData)
        drawn = values_of(generator, lean)
        generator.at(5, index)  # seeds the random numbers once more, for the plain one
        assert values_of(generator, generation.ConjectureData(random=generator._random)) == drawn


def values_of(generator: generation.Generator, data: generation.ConjectureData) -> tuple[str, bytes]:
    drawn: list[generation.Drawn] = []
    try:
        generator.run(data, drawn.append)
    except generation.Invalid:
        return "invalid", b""
    return repr(drawn[0].arguments), generation.encoded(data)
