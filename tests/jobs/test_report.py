"""The report of a run: what it says, that it is safe, bounded and self-contained."""

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest

from sciseq.jobs.drift import realised_errors
from sciseq.jobs.report import report_html, write_report
from sciseq.jobs.report_html import markup, table
from sciseq.jobs.report_series import some_series

EVIL = '<script>alert("1")</script>'
RECORD: dict[str, Any] = {
    "job": "grid",
    "task": "forecast",
    "run_id": "3f2a9c01d4e5b678",
    "as_of": "2026-03-05 00:00:00",
    "model_version": "a1b2c3d4e5f60718",
    "trained_as_of": "2026-03-01 00:00:00",
    "status": "done",
    "exit_code": 0,
    "source": {
        "where": "grid.parquet",
        "digest": "9f" * 32,
        "rows": 288,
        "series": 3,
        "first": "2026-03-01 00:00:00",
        "last": "2026-03-04 23:00:00",
        "late_rows": 2,
    },
    "parts": {"total": 12, "reused": 4},
    "failed_series": [],
    "retrain": {"decision": "kept", "reason": "the model is 4 days old"},
    "gates": [
        {
            "against": "seasonal-naive",
            "metric": "mase",
            "new": 0.81234,
            "other": 1.02,
            "passed": True,
        }
    ],
    "drift": {"ratio": 2.31, "threshold": 2.0, "runs": 5},
    "destination": {"where": "ahead.parquet", "rows": 72, "digest": "ab" * 32},
    "notes": ["2 rows came late"],
}


def table_of(
    n_series: int, n_rows: int, start: str, zone: str | None = None
) -> pd.DataFrame:
    times = pd.date_range(start, periods=n_rows, freq="h", tz=zone)
    names = [f"s{number:05d}" for number in range(n_series)]
    index = pd.MultiIndex.from_product([names, times], names=["series", "time"])
    wave = np.sin(np.arange(n_rows) / 4)
    return pd.DataFrame({"load": np.tile(wave, n_series)}, index)


def errors_of(forecast: pd.DataFrame, n_runs: int = 3) -> pd.DataFrame:
    runs = []
    for run in range(n_runs):
        date = pd.Timestamp("2026-03-01") + pd.Timedelta(days=run)
        truth = forecast + 1.0 + run
        runs.append(realised_errors(forecast, truth, as_of=date, run_id=f"r{run}"))
    return pd.concat(runs)


def report_of(record: dict[str, Any] | None = None, **changes: Any) -> str:
    forecast = table_of(3, 24, "2026-03-05")
    given: dict[str, Any] = {
        "history": table_of(3, 96, "2026-03-01"),
        "forecast": forecast,
        "errors": errors_of(forecast),
    }
    return report_html(record or RECORD, **(given | changes))


@cache
def small_report() -> str:
    return report_of()


class Page(HTMLParser):
    """What a reader is given: tags with their attributes, and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


# --- What it says --------------------------------------------------------------------


def test_it_tells_what_the_run_was() -> None:
    text = Page(small_report()).text
    for said in (
        "Done",
        "72 rows were written to ahead.parquet.",
        "3f2a9c01d4e5b678",
        "a1b2c3d4e5f60718",
        "kept: the model is 4 days old",
        "12, of which 4 were finished before a stop",
        "seasonal-naive",
        "0.8123",
        "2.31 times",
        "Above the threshold of 2, at which the model is fitted again.",
        "2 rows came late",
    ):
        assert said in text, said
    assert text.index("Done") < text.index("This run"), "the verdict comes first"


def test_errors_by_run_and_by_lead_are_the_errors() -> None:
    # Errors are -1, -2 and -3 in the three runs, at every lead.
    page = Page(small_report())
    alts = [one["alt"] for one in page.of("img")]
    assert alts[-2:] == [
        "Line chart of load: mean absolute error by run, by logical date from "
        "2026-03-01 to 2026-03-03: 3 rows between 1 and 3, the last 3.",
        "Line chart of load: mean absolute error by lead, by lead (rows ahead) from 1 "
        "to 24: 24 rows between 2 and 2, the last 2.",
    ]
    assert re.search(r"load\s*216\s*2\s*-2\s", page.text.replace("\u202f", ""))


def test_failed_series_are_named_with_their_errors() -> None:
    failed = [{"series": "west", "error": "infinite value in row 17"}]
    changes = {
        "status": "done with failures",
        "exit_code": 3,
        "failed_series": failed,
    }
    text = Page(report_of(RECORD | changes, forecast=None, errors=None)).text
    assert "Done, but 1 of 3 series failed" in text
    assert text.index("west") < text.index("infinite value in row 17")
    assert "What to do" in text


def test_a_gate_that_stopped_the_run_is_named() -> None:
    gate = RECORD["gates"][0] | {"against": "previous", "new": 1.5, "passed": False}
    changes = {
        "status": "stopped by a gate",
        "exit_code": 4,
        "gates": [gate, *RECORD["gates"]],
        "destination": None,
    }
    text = Page(report_of(RECORD | changes, forecast=None, errors=None)).text
    assert "Stopped by a quality gate: nothing was written" in text
    assert "The new model's MASE is 1.5, that of the previous model is 1.02." in text
    # Gates that passed are no reason.
    assert "seasonal naive forecast is" not in text
    assert "Forecasts\n" not in text


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (1, "Read the end of the log"),
        (2, "running it again alone will not help"),
        (5, "Wait for the other run"),
        (6, "it goes on where this run stopped"),
        (77, "Read the end of the log"),
    ],
)
def test_a_failed_run_says_what_to_do(code: int, said: str) -> None:
    record = {"job": "grid", "as_of": "2026-03-05", "status": "failed"}
    text = report_html(record | {"exit_code": code}, history=None, forecast=None)
    assert "Failed" in text
    assert said in text


def test_a_record_may_lack_anything() -> None:
    bare = report_html({"job": "grid"}, history=None, forecast=pd.DataFrame())
    assert len(Page(bare).of("h1")) == 1
    empty = dict.fromkeys(RECORD)
    report_of(empty | {"job": "grid"}, errors=errors_of(table_of(1, 2, "2026"))[:0])


def test_one_series_row_numbers_zones_and_bands_are_drawn() -> None:
    ahead = pd.DataFrame({"load": [1.0]}, [10])
    page = Page(report_of(history=None, forecast=ahead, errors=None))
    assert page.of("img")[0]["alt"] == (
        "Line chart of load. History: 0 rows without values. "
        "Forecast: 1 rows between 1 and 1, 10 to 10."
    )
    zoned = table_of(1, 30, "2026-10-25", "Europe/Berlin")
    band = zoned.assign(load_lower=zoned["load"] - 1, load_upper=zoned["load"] + 1)
    page = Page(report_of(history=zoned[:6], forecast=band[6:], errors=None))
    assert "2026-10-25 05:00" in page.of("img")[0]["alt"]
    assert "shaded: its interval" in page.text
    assert len(page.of("img")) == 1


def test_names_are_no_formulas() -> None:
    ahead = table_of(1, 3, "2026").rename({"s00000": r"$\frac{1}$"}, level=0)
    assert r"$\frac{1}$: load" in Page(report_of(forecast=ahead, history=None)).text


def test_series_are_spread_and_those_without_rows_are_not_shown() -> None:
    ahead = table_of(9, 2, "2026").drop("s00000", level=0)
    assert [one.label for one in some_series(ahead, 3)] == [
        "s00001",
        "s00005",
        "s00008",
    ]
    assert len(some_series(ahead, 100)) == 8
    assert some_series(ahead, 1)[0].forecast.index.nlevels == 1


# --- Safe: nothing of the data is markup ---------------------------------------------


def test_everything_from_data_is_escaped() -> None:
    record = json.loads(json.dumps(RECORD), object_hook=_poisoned)
    record |= {"status": "done with failures", "job": EVIL, "as_of": EVIL}
    record["failed_series"] = [{"series": EVIL, "error": EVIL + "\x00\ud800'\""}]
    record["notes"] = [EVIL]
    names = {"s00000": EVIL, "s00001": '" onerror="alert(1)'}
    ahead = table_of(3, 24, "2026-03-05").rename(names, level=0)
    ahead = ahead.rename(columns={"load": EVIL})
    text = report_of(record, forecast=ahead, history=ahead, errors=errors_of(ahead))
    text.encode()  # half a character was no character
    page = Page(text)
    allowed = set(
        "html head meta title style body main section h1 h2 h3 p b strong i span div "
        "ul li table caption thead tbody tr th td figure figcaption img details "
        "summary meter".split()
    )
    assert {tag for tag, _ in page.tags} <= allowed
    attributes = {name for _, given in page.tags for name in given}
    assert not {name for name in attributes if name.startswith("on")}
    assert "\x00" not in text
    assert page.text.count(EVIL) > 15
    # And the test can see it: unescaped, the same text is a tag.
    assert Page(f"<p>{EVIL}</p>").of("script")


def _poisoned(read: dict[str, Any]) -> dict[str, Any]:
    """Put markup wherever a text stands."""
    kept = ("status", "metric")
    return {
        key: EVIL if isinstance(value, str) and key not in kept else value
        for key, value in read.items()
    }


def test_templates_escape_whatever_is_not_markup() -> None:
    assert markup("<p>{}</p>", EVIL) == f"<p>{markup('{}', EVIL)}</p>"
    assert "<script" not in markup("{}{}", EVIL, table(EVIL, [EVIL], [[EVIL]]))


def test_it_needs_nothing_from_outside() -> None:
    page = Page(small_report())
    sources = [one["src"] for one in page.of("img")]
    assert len(sources) == 5
    assert all(one.startswith("data:image/svg+xml;base64,") for one in sources)
    assert not page.of("script") and not page.of("link") and not page.of("a")
    (policy,) = [one for one in page.of("meta") if "http-equiv" in one]
    assert policy["content"].startswith("default-src 'none'")
    style = small_report().partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_it_can_be_read_without_seeing_the_pictures() -> None:
    page = Page(small_report())
    assert page.of("html")[0]["lang"] == "en"
    assert len(page.of("h1")) == 1
    assert all(len(one["alt"]) > 20 for one in page.of("img"))
    assert all("scope" in one for one in page.of("th"))
    assert len(page.of("caption")) == len(page.of("table"))
    # The numbers of every forecast drawn.
    assert len(page.of("details")) == 3
    assert "2026-03-05 05:00" in page.text


# --- The same bytes, and not too many of them ----------------------------------------


def test_the_same_inputs_give_the_same_bytes() -> None:
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False}):
        assert report_of() == small_report()


@pytest.mark.slow
def test_another_process_writes_the_same_bytes_without_pyplot() -> None:
    # It has other random names and another seed of hashes.
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_report; "
        "sys.stdout.buffer.write(test_report.small_report().encode()); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    folder = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", script, folder], capture_output=True, check=True
    )
    assert done.stdout.decode() == small_report()


def test_settings_of_matplotlib_stay(no_global_side_effects) -> None:
    before = dict(matplotlib.rcParams)
    with no_global_side_effects():
        report_of(errors=None, n_series=1)
    assert dict(matplotlib.rcParams) == before


def test_size_is_bounded() -> None:
    n = 2000
    ahead = table_of(n, 3, "2026-03-05")
    ahead = pd.DataFrame({f"t{k}": ahead["load"] for k in range(6)})
    failed = [{"series": f"f{k}", "error": "x" * 10_000} for k in range(n)]
    record = RECORD | {"failed_series": failed, "notes": ["y" * 10_000] * n}
    errors = errors_of(ahead, n_runs=1)
    text = report_of(record, forecast=ahead, history=ahead, errors=errors)
    assert len(text) < 500_000
    page = Page(text)
    assert "the first 50 of 2\u202f000" in page.text
    assert "Shown: 6 of 2\u202f000 series, 2 of 6 targets." in page.text
    assert "(9\u202f500 more characters)" in page.text
    assert len(page.of("img")) == 12 + 8


def test_the_file_is_whole_or_not_there(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(file, RECORD, history=None, forecast=None)
    assert file.read_text("utf-8") == report_html(RECORD, history=None, forecast=None)
    assert list(tmp_path.iterdir()) == [file]
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "no" / "r.html", RECORD, history=None, forecast=None)


# --- In a real browser ---------------------------------------------------------------

# Put into a copy of a report, which forbids scripts: tells what became of the pictures,
# and what was asked of a network.
PROBE = """<script>
addEventListener("load", () => {
  const widths = [...document.images].map(one => one.complete && one.naturalWidth);
  const names = performance.getEntriesByType("resource").map(one => one.name);
  const asked = names.filter(one => !one.startsWith("data:"));
  document.body.append(JSON.stringify({
    widths, asked, wide: document.documentElement.scrollWidth, window: innerWidth,
    pictures: [...document.images].map(one => one.getBoundingClientRect().width)}));
});
</script>"""


def browse(file: Path, *options: str) -> str:
    """Return the page that headless Chromium builds from a file, without a network."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed: no browser to open the report in")
    done = subprocess.run(
        [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
            # Whatever would be asked for is not found.
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={file.parent / 'profile'}",
            *options, "--dump-dom", file.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


def test_a_browser_without_network_shows_texts_and_pictures(tmp_path: Path) -> None:
    failed = [{"series": EVIL, "error": "infinite <b>value</b>"}]
    changes = {"status": "done with failures", "failed_series": failed}
    text = report_of(RECORD | changes)
    file = tmp_path / "report.html"
    policy = re.search(r"<meta http-equiv=[^>]*>\n", text)
    assert policy is not None
    file.write_text(text.replace(policy[0], PROBE), "utf-8")
    dom = browse(file, "--window-size=500,900")
    page = Page(dom)
    assert "Done, but 1 of 3 series failed" in page.text
    assert EVIL in page.text and "infinite <b>value</b>" in page.text
    assert len(page.of("script")) == 1, "only the probe"
    found = json.loads(re.findall(r"\{.widths.*\}", page.text)[-1])
    assert found["widths"] == [384] * 5, "every picture was read"
    assert found["asked"] == [], "nothing was asked of a network"
    assert found["wide"] <= found["window"], "no part sticks out of a narrow window"
    assert min(found["pictures"]) > 300


@pytest.mark.slow
def test_the_policy_of_the_page_stops_scripts_and_requests(tmp_path: Path) -> None:
    text = small_report().replace(
        "</main>", f"</main>{PROBE}<img src='http://a.test/x'>"
    )
    file = tmp_path / "report.html"
    file.write_text(text, "utf-8")
    assert '"widths"' not in browse(file), "the probe did not run"
