from __future__ import annotations

import base64
import gzip
import hashlib
import json
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from densescope.errors import NOT_FINITE as NAN
from densescope.estimate import Estimate
from densescope.records import ScoreRecord
from densescope.report import ReportData, build_report_data, page, render_report, write_report
from densescope.report.values import NOT_FINITE, Heading
from densescope.selection import Alarm, RunTable, select_checkpoints
from densescope.selection.headline import across_choices, headline
from tests.report.synthetic import choose, records, report

HOSTILE = "</script><script>alert('x')</script>\"><img src=x onerror=alert(1)>.pth"
VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """The page as a list of tags, checked to nest, with the text of table cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data.strip("\n")

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


CALM = ", but no alarm came: without labels take the last checkpoint."


def heading(text: str) -> str:
    found = re.search(r"<h1[^>]*>(.*?)</h1>", text, re.DOTALL)
    assert found is not None
    return re.sub(r"<[^>]+>", "", found[1]).replace("&nbsp;", " ")


def test_the_answer_comes_first() -> None:
    rows = records(24)
    selection = choose(rows)
    step = next(row.step for row in selection.rows if row.is_pick)
    text = render_report(report(rows=rows, alternatives=False))
    assert (
        heading(text) == headline(selection) == f"DSE picks {selection.pick} (epoch {step}){CALM}"
    )
    said = escape(selection.verdict.removeprefix(f"{headline(selection)} "))
    assert not said.startswith("DSE picks")
    assert text.index("<h1") < text.index(said) < text.index("data-figure")
    assert "From the pick to the last checkpoint,\neffective rank moved" in text


def test_a_look_of_a_monitor_is_not_told_its_place_twice() -> None:
    rows = [replace(row, name=f"step {row.step}", unit="step") for row in records(24)]
    text = render_report(report(rows=rows, alternatives=False))
    assert heading(text) == f"DSE picks {choose(rows).pick}{CALM}"
    assert "DSE picks step" not in text[text.index("</h1>") :]


def test_a_pick_inside_a_fall_gives_way_to_the_alarm() -> None:
    run = records()
    selection = choose(run)
    pick, before = selection.row(str(selection.pick)), selection.rows[2]
    alarm = Alarm(
        *("fall", "effective_rank", pick.name, pick.step, selection.last, selection.rows[-1].step),
        *(before.name, before.step, "epoch", None, None, None, "The effective rank fell <b>."),
    )
    text = render_report(build_report_data(run, selection, alarm=alarm))
    assert f'<h1 id="answer">Go back to <span class="name">{before.name}</span></h1>' in text
    assert "The effective rank fell &lt;b&gt;. The pick by DSE," in text
    later = replace(alarm, since_step=pick.step + 1)
    text = render_report(build_report_data(run, selection, alarm=later))
    assert f'DSE picks <span class="name" id="pick">{pick.name}</span>' in text
    assert "The pick by DSE," not in text
    assert "By DSE over the scored checkpoints: " in text
    by_run = select_checkpoints(run, lambda_choice="run")
    text = render_report(build_report_data(run, by_run, alarm=replace(alarm, since_step=0)))
    assert "By DSE over the whole run, the fallen checkpoints included: " in text
    unscored = replace(alarm, since_step=selection.rows[-1].step + 1)
    text = render_report(build_report_data(run, selection, alarm=unscored))
    assert "By DSE over the scored checkpoints: " in text
    assert 'id="alarm"' not in render_report(build_report_data(run, selection))


def test_the_heading_is_not_said_twice_but_an_alternative_names_its_pick() -> None:
    rows = records(24)
    sentence = "DSE picks checkpoint"
    assert render_report(report(rows=rows, alternatives=False)).count(sentence) == 0
    other = headline(choose(rows, "paper"))
    assert render_report(report(rows=rows)).count(other) == 1


def test_one_line_says_whether_the_pick_depends_on_definition_or_lambda() -> None:
    rows = records(24)
    sentence = across_choices(RunTable.of(rows))
    assert sentence is not None
    assert "definition" in sentence
    assert f'id="across">{sentence}' in unescape(render_report(report(rows=rows)))


def test_every_number_can_be_read_without_scripts() -> None:
    data = report(12)
    cells = Page(render_report(data)).cells
    for curve in (*data.columns, *data.stored):
        for shown in curve.values:
            assert shown is not None
            assert shown.text(curve.decimals) in cells


def test_noise_that_is_not_known_is_not_claimed() -> None:
    claim = "differ from the pick by more than the noise"
    rows = records(6)
    selection = choose(rows)
    selection = replace(
        selection, rows=tuple(replace(r, below_noise_of_pick=False) for r in selection.rows)
    )
    assert claim in render_report(build_report_data(rows, selection))
    bare = tuple(replace(r, dse=Estimate(r.dse.value)) for r in selection.rows if r.dse)
    assert claim not in render_report(build_report_data(rows, replace(selection, rows=bare)))


def test_a_failed_checkpoint_is_named_with_its_reason() -> None:
    data = report(6, failed=(2,))
    assert f"failed: {data.checkpoints[2].error}" in Page(render_report(data)).cells


def test_text_from_files_is_escaped_everywhere() -> None:
    rows = [replace(row, name=f"{row.step}{HOSTILE}") for row in records(8, failed=(1,))]
    rows[1] = replace(rows[1], error=HOSTILE)
    rows[2] = replace(rows[2], scores={"-1": {**rows[2].scores["-1"], HOSTILE: Estimate(1.0)}})
    clean = Page(render_report(report(8, failed=(1,))))
    text = render_report(report(rows=rows, run={"title": HOSTILE, HOSTILE: HOSTILE}))
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert Page(text).count("script") == clean.count("script") == 3
    assert Page(text).count("img") == clean.count("img")


def test_no_line_of_an_alarm_ends_within_an_option() -> None:
    said = page.unbroken_options("<b> go back: pretrain --regularizer gram --beta 100); 3 --")
    option, weight = (
        f'<span class="unbroken">--{one}</span>' for one in ("regularizer", "beta 100")
    )
    assert said == f"&lt;b&gt; go back: pretrain {option} gram {weight}); 3 --"


def test_nothing_is_fetched() -> None:
    text = render_report(report(6, with_previews=True))
    for tag, attributes in Page(text).tags:
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        assert (attributes.get("src") or "data:image/").startswith("data:image/")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_names_exactly_the_scripts_of_the_page() -> None:
    text = render_report(report(3))
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    script = text[text.rindex("<script>") + len("<script>") : text.rindex("</script>")]
    packed = re.search(r'id="library">([^<]+)<', text)
    assert packed is not None
    library = gzip.decompress(base64.b64decode(packed[1])).decode()
    allowed = set(re.findall(r"sha256-[\w+/=]+", policy[1].replace("&#43;", "+")))
    digests = (hashlib.sha256(part.encode()).digest() for part in (script, library))
    assert allowed == {f"sha256-{base64.b64encode(digest).decode()}" for digest in digests}
    assert "default-src &#39;none&#39;" in policy[1]


def test_the_same_data_gives_the_same_page() -> None:
    assert render_report(report(5, with_previews=True)) == render_report(
        report(5, with_previews=True)
    )


def test_eighty_checkpoints_stay_below_five_megabytes() -> None:
    size = len(render_report(report(80, failed=(11, 40), with_previews=True)).encode())
    assert 1e6 < size < 5e6


def test_three_hundred_checkpoints() -> None:
    text = render_report(report(300))
    assert len(text.encode()) < 8e6
    assert len(re.findall(r"data-name=", text)) == 300


def test_one_checkpoint_by_the_paper_definition_has_parts_but_no_sum() -> None:
    rows = records(1)
    data = build_report_data(rows, choose(rows, "paper"), run={"title": "one"})
    text = render_report(data)
    assert heading(text) == "No checkpoint is picked."
    assert text.count("Lambda is not defined") == 1
    assert 'data-figure="' not in text
    assert 'id="shortlist"' not in text


def test_a_section_without_figures_has_no_heading() -> None:
    rows = records(5)
    once = {rows[0].name: Estimate(30.0)}
    columns = [Heading(key, key, "%", f"about {key}") for key in ("single", "whole")]
    whole = {row.name: Estimate(float(row.step)) for row in rows}
    for series, shown in (
        ({columns[0]: once}, False),
        ({columns[0]: once, columns[1]: whole}, True),
    ):
        text = render_report(build_report_data(rows, choose(rows), extras=series))
        assert ("Measured beside it" in text) is shown
        assert ("about whole" in text) is shown
        assert "about single" not in text
    assert "Other label-free metrics" not in render_report(report(1))


def test_one_checkpoint_by_the_released_definition_is_kept() -> None:
    text = render_report(report(1))
    assert heading(text).startswith("Only checkpoint0010.pth (epoch 10) was scored")
    assert 'id="change"' not in text


def ended(rows: list[ScoreRecord], error: str) -> ReportData:
    """A run whose last two checkpoints were not scored for that reason."""
    names = [replace(row, status="failed", scores={}, error=error) for row in rows[-2:]]
    return report(rows=[*rows[:-2], *names])


def test_tied_checkpoints_head_the_page_in_place_of_a_pick() -> None:
    rows = records(6)
    selection = choose(rows)
    alike = [replace(row, below_noise_of_pick=not row.is_pick) for row in selection.rows]
    tied = replace(selection, rows=tuple(alike))
    first, last = rows[0].step, rows[-1].step
    peak = tied.row(str(tied.earliest_peak))
    said = (
        f"o clear winner: all 6 checkpoints (epochs {first}-{last}) are tied; the earliest peak is "
        f"{peak.name} (epoch {peak.step})."
    )
    assert heading(render_report(build_report_data(rows, tied))) == f"N{said}"
    broken = replace(tied, diverged=("later.pth",))
    text = render_report(build_report_data(rows, broken))
    assert heading(text) == f"Training diverged. N{said}"
    alone = tuple(replace(row, below_noise_of_pick=False) for row in alike)
    apart = render_report(build_report_data(rows, replace(selection, rows=alone)))
    assert "No clear winner" not in heading(apart)


def test_a_run_that_diverged_says_so_first() -> None:
    rows = records(5)
    data = ended(rows, f"holds {NAN} weights: the run diverged")
    text = render_report(data)
    pick = data.view.pick
    assert pick is not None
    assert heading(text).startswith(f"Training diverged. Use {pick.name}")
    assert data.view.lead.startswith("Training diverged after checkpoint")
    assert f"Use {pick.name}" not in data.view.lead
    rising = choose(rows[:1])
    assert rising.pick == rows[0].name
    only = render_report(ended(rows[:3], "cut off"))
    assert heading(only).startswith(f"Only {rows[0].name} (epoch 10) was scored (2 failed): there")
    assert "last scored</td>" in only


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_page_is_headed_by_the_sentence_that_select_prints(count: int) -> None:
    rows = records(6, failed=tuple(range(count, 6)))
    selection = choose(rows)
    text = render_report(build_report_data(rows, selection))
    assert heading(text) == headline(selection)
    assert text.count(f'<span class="name" id="pick">{selection.pick}</span>') == 1
    if count == 2:
        assert "of the 2 checkpoints that could be scored (4 failed), " in heading(text).lower()
    if count == 3:
        assert "of the 3 checkpoints that could be scored (3 failed), " in heading(text).lower()


def test_checkpoints_within_noise_are_listed_by_number() -> None:
    selection = choose(run := records(6))
    alike = [replace(row, below_noise_of_pick=row.step > 40) for row in selection.rows]
    text = render_report(build_report_data(run, replace(selection, rows=tuple(alike))))
    assert (
        "2 of the other checkpoints differ from the pick by less than the noise: epochs 50, 60."
        in (" ".join(text.split()))
    )


def test_where_many_failed_all_others_are_those_that_could_be_scored() -> None:
    rows = records(8, failed=(0, 3, 5, 6))
    text = render_report(report(rows=rows))
    said = "All other checkpoints of the 4 that could be scored differ from the pick by more than"
    assert said in text
    assert "the noise; 4 failed." in text
    assert said not in render_report(report(rows=records(8)))


def test_a_run_in_which_all_failed() -> None:
    rows = records(4, failed=(0, 1, 2, 3))
    text = render_report(report(rows=rows))
    parsed = Page(text)
    assert heading(text) == "No checkpoint is picked."
    assert sum(cell.startswith("failed: ") for cell in parsed.cells) == 4
    assert not [a for _, a in parsed.tags if "data-figure" in a]
    assert "No checkpoint has a score to choose by; the table says why." in text


def test_a_run_without_records() -> None:
    text = render_report(build_report_data([], None))
    Page(text)
    assert "This run has no records yet." in text


def test_without_previews_there_are_no_maps() -> None:
    with_maps, without = (render_report(report(4, with_previews=w)) for w in (True, False))
    assert 'id="map-clusters"' in with_maps
    assert "What the patch features look like" not in without


def test_numbers_that_are_not_finite_are_said_to_be() -> None:
    rows = records(6)
    rows[2] = replace(
        rows[2], scores={"-1": {**rows[2].scores["-1"], "rankme": Estimate(math.inf)}}
    )
    text = render_report(report(rows=rows))
    assert NOT_FINITE in Page(text).cells
    figures = re.search(r'id="figures">(.*?)</script>', text, re.DOTALL)
    assert figures is not None
    json.loads(figures[1], parse_constant=pytest.fail)


def test_the_legend_is_well_formed() -> None:
    text = render_report(report(6, failed=(1,)))
    legend = re.search(r'<p class="legend".*?</p>', text, re.DOTALL)
    assert legend is not None
    words = "".join(ElementTree.fromstring(legend[0]).itertext()).split()
    assert words[-4:] == ["candidate", "shortlist", "pick", "failed"]


def test_the_page_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new folder" / "report.html"
    data = report(3)
    write_report(data, path)
    assert path.read_text(encoding="utf-8") == render_report(data)

    def fail(_: object) -> str:
        raise RuntimeError("power cut")

    monkeypatch.setattr(page, "render_report", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        write_report(report(4), path)
    assert path.read_text(encoding="utf-8") == render_report(data)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
