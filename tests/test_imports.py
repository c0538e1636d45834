"""What `import zonda` gives, and what it must not cost."""
import subprocess
import sys

import pytest

import zonda

HEAVY = ("numpy", "numba", "llvmlite", "tokenizers", "huggingface_hub", "starlette", "uvicorn", "rich",
         "prompt_toolkit", "jinja2", "torch", "transformers")


def loaded(code: str) -> set[str]:
    program = f"import sys; {code}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(ran.stdout.split())


@pytest.mark.parametrize("code", [
    "import zonda", "from zonda import Sampling, ZondaError", "import zonda.cli.commands", "import zonda.options",
])
def test_importing_loads_nothing_heavy(code: str) -> None:
    assert not loaded(code).intersection(HEAVY)


def test_naming_the_models_classes_loads_no_numpy() -> None:
    assert not loaded("from zonda import LLM, AsyncLLM, Completion").intersection(HEAVY)


def test_asking_for_help_loads_no_command() -> None:
    code = "from zonda.cli.main import call; call(['--help'])"
    assert not loaded(code).intersection({*HEAVY, "zonda.cli.run", "zonda.cli.bench", "zonda.sdk"})


@pytest.mark.parametrize("name", zonda.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(zonda, name) is not None


def test_the_public_names_are_listed_once() -> None:
    assert len(zonda.__all__) == len(set(zonda.__all__))
    assert dir(zonda) == sorted(zonda.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'LLMs'"):
        zonda.LLMs  # noqa: B018


def test_every_error_is_public() -> None:
    from zonda import errors
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined <= set(zonda.__all__)
