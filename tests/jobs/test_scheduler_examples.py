"""The examples of docs/schedulers.md: their syntax, and the exit codes in them."""

import ast
import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from sciseq.jobs import exit_codes
from sciseq.jobs.exit_codes import EXIT_CODES

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"
PAGE = (DOCS / "schedulers.md").read_text("utf-8")
NAMES = (
    "DONE",
    "FAULT",
    "REFUSED",
    "SOME_FAILED",
    "GATE",
    "LOCKED",
    "TEMPORARY",
    "INTERRUPTED",
)
CODES = {name: getattr(exit_codes, name) for name in NAMES}


def test_the_table_of_the_page_has_every_exit_code() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
    assert [int(code) for code, _, _ in rows] == list(EXIT_CODES)
    assert set(CODES.values()) == set(EXIT_CODES)


def test_the_page_shows_every_example() -> None:
    shown = re.findall(r"\{literalinclude\} examples/(.+)$", PAGE, re.MULTILINE)
    assert sorted(shown) == sorted(one.name for one in EXAMPLES.iterdir())


# --- Python: Airflow and Prefect -----------------------------------------------------


def codes_in(tree: ast.Module) -> dict[str, int]:
    """Constants at the top of a file, as the file itself would have them."""
    targets = [one for one in tree.body if isinstance(one, ast.Assign)]
    module = ast.Module(targets, type_ignores=[])
    namespace: dict[str, int] = {}
    exec(compile(module, "example", "exec"), namespace)
    return {name: namespace[name] for name in NAMES}


@pytest.mark.parametrize("name", ["airflow_dag.py", "prefect_flow.py"])
def test_python_examples_know_the_exit_codes(name: str) -> None:
    tree = ast.parse((EXAMPLES / name).read_text("utf-8"))
    assert codes_in(tree) == CODES
    used = {one.id for one in ast.walk(tree) if isinstance(one, ast.Name)}
    assert {"DONE", "SOME_FAILED", "LOCKED", "TEMPORARY", "INTERRUPTED"} <= used
    (command,) = [
        one
        for one in ast.walk(tree)
        if isinstance(one, ast.List) and ast.unparse(one).startswith("['sciseq', 'run'")
    ]
    assert ast.literal_eval(command.elts[3]) == "--as-of"


def test_another_number_would_be_seen() -> None:
    text = (EXAMPLES / "prefect_flow.py").read_text("utf-8")
    wrong = text.replace("GATE, LOCKED,", "LOCKED, GATE,")
    assert codes_in(ast.parse(wrong)) != CODES


# --- systemd -------------------------------------------------------------------------


def unit(name: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, delimiters=["="])
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string((EXAMPLES / name).read_text("utf-8"))
    return parsed


def test_units_have_their_sections_and_codes() -> None:
    service, timer = unit("sciseq-job@.service"), unit("sciseq-job@.timer")
    assert service.sections() == ["Unit", "Service"]
    assert timer.sections() == ["Unit", "Timer", "Install"]
    assert unit("sciseq-alert@.service").sections() == ["Unit", "Service"]
    run = service["Service"]
    assert run["SuccessExitStatus"] == str(CODES["LOCKED"])
    stays = {int(one) for one in run["RestartPreventExitStatus"].split()}
    assert stays == {CODES[one] for one in ("FAULT", "REFUSED", "SOME_FAILED", "GATE")}
    assert CODES["TEMPORARY"] not in stays
    assert "--as-of" in run["ExecStart"]
    assert service["Unit"]["OnFailure"] == "sciseq-alert@%i.service"


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    names = ["sciseq-job@.service", "sciseq-job@.timer", "sciseq-alert@.service"]
    files = [tmp_path / name.replace("@", "@load") for name in names]
    for name, file in zip(names, files, strict=True):
        shutil.copy(EXAMPLES / name, file)
    assert verify(*files) == ""
    # What systemd refuses is seen here.
    text = files[0].read_text("utf-8")
    files[0].write_text(text.replace("Restart=on-failure", "Restart=always"), "utf-8")
    assert "isn't allowed for Type=oneshot" in verify(*files)


def verify(*files: Path) -> str:
    """Return what systemd says against units, other units of the machine aside."""
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stderr.splitlines()
    return "\n".join(one for one in lines if "sciseq" in one)


# --- cron ----------------------------------------------------------------------------


def test_the_crontab_has_one_line_that_calls_the_script() -> None:
    lines = (EXAMPLES / "crontab").read_text("utf-8").splitlines()
    jobs = [one for one in lines if one[:1].isdigit()]
    assert len(jobs) == 1
    *when, script, job = jobs[0].split()
    assert when == ["0", "2", "*", "*", "*"]
    assert Path(script).name == "nightly.sh" and job.endswith(".toml")
    # Cron reads a percent sign as the end of the line.
    assert "%" not in jobs[0]


def test_cron_accepts_the_crontab() -> None:
    if shutil.which("crontab") is None:
        pytest.skip("crontab is not installed")
    command = ["crontab", "-n", str(EXAMPLES / "crontab")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "invalid option" in done.stderr:
        pytest.skip("this crontab cannot check a file")
    assert done.returncode == 0, done.stderr


def test_the_script_has_the_codes() -> None:
    text = (EXAMPLES / "nightly.sh").read_text("utf-8")
    (line,) = re.findall(r"^DONE=.*$", text, re.MULTILINE)
    assert {
        name: int(code) for name, code in (one.split("=") for one in line.split())
    } == CODES


@pytest.mark.parametrize(
    ("codes", "ends", "said"),
    [
        ([0], 0, ""),
        ([5], 0, ""),
        ([3], 3, "some series failed"),
        ([4], 4, "quality gate"),
        ([2], 2, "mend the job file"),
        ([1], 1, "fault, exit code 1"),
        ([137], 137, "fault, exit code 137"),
        ([130], 130, "interrupted"),
        ([6, 6, 0], 0, ""),
        ([6, 4], 4, "quality gate"),
        ([6, 6, 6, 0], 6, "still in trouble"),
    ],
    ids=str,
)
def test_the_script_deals_with_every_code(
    tmp_path: Path, codes: list[int], ends: int, said: str
) -> None:
    calls = tmp_path / "calls"
    fake = tmp_path / "bin" / "sciseq"
    fake.parent.mkdir()
    # Ends with the next of the codes; says which call it is.
    fake.write_text(
        f'#!/bin/sh\necho "$@" >>{calls}\nset -- {" ".join(map(str, codes))}\n'
        f"shift $(($(wc -l <{calls}) - 1))\necho told\nexit $1\n",
        "utf-8",
    )
    fake.chmod(0o755)
    done = subprocess.run(
        ["sh", str(EXAMPLES / "nightly.sh"), "job.toml", "2026-03-01"],
        cwd=tmp_path,
        env=os.environ
        | {
            "PATH": f"{fake.parent}:{os.environ['PATH']}",
            "SCISEQ_WAITS": "0 0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ends
    assert done.stderr == ""
    if said:
        assert said in done.stdout.splitlines()[0]
        assert done.stdout.splitlines()[-1] == "told"
    else:
        assert done.stdout == "", "cron would mail it"
    made = calls.read_text("utf-8").splitlines()
    assert made == ["run job.toml --as-of 2026-03-01"] * min(len(codes), 3)
