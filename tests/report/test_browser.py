"""The page as a reader meets it, in a browser that has no network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from densescope.report import build_report_data, write_report
from densescope.report.data import ReportData
from densescope.selection import RunTable
from tests.conftest import CHROMIUM
from tests.report.probed import probe_set, probed_report, probes
from tests.report.synthetic import choose, layered, records, report

pytestmark = pytest.mark.browser
SHOWN = (
    "[...document.querySelectorAll('.panels .hovertext')].map((label) => label.textContent)"
    ".filter((text) => text.includes('.pth'))"
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Seen:
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(
    chromium: Any, data: ReportData, path: Path, *, scripts: bool = True
) -> Iterator[tuple[Any, Seen]]:
    write_report(data, path)
    context = chromium.new_context(
        viewport={"width": 1280, "height": 900}, offline=True, java_script_enabled=scripts
    )
    page = context.new_page()
    seen = Seen()
    page.on("console", lambda message: seen.complaints.append(message.text))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(path.as_uri())
    if scripts:
        page.wait_for_selector("html.ready", state="attached")
    yield page, seen
    context.close()


def test_pick_and_numbers_on_the_page_are_those_of_the_run(chromium: Any, tmp_path: Path) -> None:
    rows = records(24, failed=(7,))
    selection = choose(rows)
    data = report(rows=rows, with_previews=True)
    with opened(chromium, data, tmp_path / "report.html") as (page, seen):
        assert page.inner_text("#pick") == selection.pick
        row = page.locator(f'#checkpoints tr[data-name="{selection.pick}"]')
        pick = next(row for row in selection.rows if row.is_pick)
        assert pick.dse is not None
        cell = row.locator("td").nth(2)
        assert float(cell.inner_text().split(" ± ")[0]) == pytest.approx(pick.dse.value, abs=5e-4)
        assert float(cell.get_attribute("data-sort")) == pick.dse.value
        drawn = page.evaluate(
            "document.querySelector('[data-figure=view0-dse]').data"
            ".find((trace) => trace.mode === 'lines+markers').y"
        )
        assert drawn[7] is None
        expected = [row.dse.value for row in selection.rows if row.dse]
        assert [y for y in drawn if y is not None] == pytest.approx(expected, rel=1e-5)
        assert page.locator("[data-figure] svg.main-svg").count() > 10
        assert page.locator(".modebar-btn").count() == 0
        assert seen.complaints == []
        assert seen.requests == [(tmp_path / "report.html").as_uri()]


def test_a_click_on_a_heading_sorts_and_failed_checkpoints_stay_last(
    chromium: Any, tmp_path: Path
) -> None:
    rows = records(12, failed=(4,))
    selection = choose(rows)
    best = sorted((r for r in selection.rows if r.dse), key=lambda r: -r.dse.value)  # type: ignore[union-attr]
    names = "[...document.querySelectorAll('#checkpoints tbody tr')].map((r) => r.dataset.name)"
    with opened(chromium, report(rows=rows), tmp_path / "report.html") as (page, _):
        dse = page.locator("#checkpoints thead button", has_text="DSE").first
        dse.click()
        assert page.evaluate(names) == [*(row.name for row in best), rows[4].name]
        dse.click()
        assert page.evaluate(names) == [*(row.name for row in best[::-1]), rows[4].name]
        page.locator("#checkpoints thead button", has_text="Epoch").click()
        assert page.evaluate(names) == [record.name for record in rows]


def wait_until(page: Any, condition: str) -> None:
    """Ask from outside: the page's policy forbids waiting in it, which evaluates text."""
    deadline = time.monotonic() + 10
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(50)


def test_pointing_at_a_checkpoint_shows_it_in_the_figures_beside(
    chromium: Any, tmp_path: Path
) -> None:
    with opened(chromium, report(24), tmp_path / "report.html") as (page, _):
        figure = page.locator("[data-figure=view0-dse]")
        figure.scroll_into_view_if_needed()
        box = figure.bounding_box()
        for shift in (0, 2):
            page.mouse.move(box["x"] + box["width"] / 2 + shift, box["y"] + box["height"] / 2)
        wait_until(page, f"{SHOWN}.length === 3")
        texts = page.evaluate(SHOWN)
        assert {text.split("epoch")[0] for text in texts} == {"checkpoint0120.pth"}
        page.mouse.move(2, 2)
        wait_until(page, f"{SHOWN}.length === 0")


def test_nothing_sticks_out_sideways(chromium: Any, tmp_path: Path) -> None:
    with opened(
        chromium, report(24, failed=(2,), with_previews=True), tmp_path / "report.html"
    ) as (page, _):
        for width in (1280, 700, 360):
            page.set_viewport_size({"width": width, "height": 900})
            wait_until(page, f"document.documentElement.scrollWidth <= {width}")


def test_a_table_wider_than_its_place_says_so(chromium: Any, tmp_path: Path) -> None:
    rows = [
        replace(row, scores={"-1": {k: v for k, v in row.scores["-1"].items() if k != "lidar"}})
        for row in records(8)
    ]
    data = report(rows=rows, alternatives=False)
    with opened(chromium, data, tmp_path / "run.html") as (page, _):
        table, hint = page.locator("#checkpoints"), page.locator(".more").first
        cut = "box => [box.parentElement.scrollWidth - box.parentElement.clientWidth, "
        cut += "box.parentElement.classList.contains('cut')]"
        for width, fits in ((1280, True), (700, False)):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(200)
            hidden, shaded = table.evaluate(cut)
            assert (hidden <= 1, hint.is_hidden(), not shaded) == (fits, fits, fits)
        table.evaluate("box => { box.parentElement.scrollLeft = 9999; }")
        page.wait_for_timeout(200)
        assert table.evaluate(cut)[1] is False


def test_a_narrow_screen_shows_every_number_of_what_a_choice_cost(
    chromium: Any, tmp_path: Path
) -> None:
    rows = [replace(row, name=f"a-long-name-of-a-run-{row.step:06}.pth") for row in records(8)]
    with opened(chromium, probed_report(rows, probe_set(rows)), tmp_path / "run.html") as (page, _):
        page.set_viewport_size({"width": 500, "height": 900})
        for table in ("choices", "correlation"):
            fits = "box => box.scrollWidth - box.parentElement.clientWidth"
            assert page.locator(f".{table}").evaluate(fits) <= 1
        name = page.locator(".choices tbody .choice").first
        assert name.evaluate("cell => cell.scrollWidth > cell.clientWidth")  # cut at its beginning
        right = "cell => cell.querySelector('.name').getBoundingClientRect().right"
        inside = "cell => cell.getBoundingClientRect().right"
        assert name.evaluate(right) <= name.evaluate(inside)
        assert name.get_attribute("title") == rows[-1].name


def test_hostile_names_stay_text(chromium: Any, tmp_path: Path) -> None:
    hostile = "<script>document.title='owned'</script><img src=http://example.invalid/x>.pth"
    rows = [replace(row, name=f"{row.step}{hostile}") for row in records(6, failed=(1,))]
    rows[1] = replace(rows[1], error=hostile)
    data = report(rows=rows, run={"title": "a run", hostile: hostile})
    with opened(chromium, data, tmp_path / "report.html") as (page, seen):
        assert page.title() == "a run · densescope"
        assert page.inner_text("#pick") == choose(rows).pick
        assert len(seen.requests) == 1
        assert seen.complaints == []


def test_the_policy_stops_a_script_that_is_not_ours(chromium: Any, tmp_path: Path) -> None:
    with opened(chromium, report(3), tmp_path / "report.html") as (page, seen):
        page.evaluate(
            "document.body.insertAdjacentHTML('beforeend',"
            " '<img src=data:, onerror=\"document.title = 1\">')"
        )
        page.wait_for_timeout(100)
        assert page.title() != "1"
        assert any("Content Security Policy" in text for text in seen.complaints)


def test_without_javascript_the_numbers_remain(chromium: Any, tmp_path: Path) -> None:
    data = report(4)
    with opened(chromium, data, tmp_path / "report.html", scripts=False) as (page, _):
        assert "The figures need JavaScript." in page.inner_text("body")
        shown = data.view.dse.values[0]
        assert shown is not None
        assert shown.text(data.view.dse.decimals) in page.inner_text("#checkpoints")


def test_a_browser_that_cannot_unpack_says_so(chromium: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(report(3), path)
    page = chromium.new_page()
    page.add_init_script("delete window.DecompressionStream")
    page.goto(path.as_uri())
    page.wait_for_selector("html.ready", state="attached")
    assert "This browser cannot draw the figures." in page.inner_text("body")
    page.close()


@pytest.mark.parametrize("failed", [(), (0,)])
def test_a_lone_checkpoint_opens_without_complaint(
    chromium: Any, tmp_path: Path, failed: tuple[int, ...]
) -> None:
    data = report(1, failed=failed)
    with opened(chromium, data, tmp_path / "report.html") as (_, seen):
        assert seen.complaints == []


def test_what_labels_say_can_be_read_off_the_page(chromium: Any, tmp_path: Path) -> None:
    rows = records(12, failed=(4,))
    found = probes(rows)
    data = probed_report(rows, probe_set(rows, drawn=True), probe_set(rows, found[::3]))
    with opened(chromium, data, tmp_path / "report.html") as (page, seen):
        drawn = page.evaluate(
            "document.querySelector('[data-figure=probe_set0-measure]').data"
            ".find((trace) => trace.mode === 'lines+markers').y"
        )
        assert drawn[4] is None
        expected = [100 * probe.value for probe in found]
        assert [y for y in drawn if y is not None] == pytest.approx(expected, rel=1e-5)
        page.locator("#probe_set0 summary").click()
        row = page.locator("#probe_set0 .values tbody tr").first
        assert float(row.locator("td").nth(1).inner_text().split(" ± ")[0]) == pytest.approx(
            100 * found[0].value, abs=5e-3
        )
        assert page.locator("#probe_set0 .masks img").count() == 2 * 4
        assert page.locator("#probe_set1 .plot svg.main-svg").count() > 1
        for width in (1280, 700, 360):
            page.set_viewport_size({"width": width, "height": 900})
            wait_until(page, f"document.documentElement.scrollWidth <= {width}")
        assert seen.complaints == []
        assert len(seen.requests) == 1


def test_layer_maps_have_a_picker_and_are_read_with_the_keyboard(
    chromium: Any, tmp_path: Path
) -> None:
    rows = layered(records(5), depth=4)
    data = build_report_data(rows, choose(rows))
    shown = ".layer-map:not([hidden])"
    with opened(chromium, data, tmp_path / "report.html") as (page, seen):
        assert page.locator(shown).get_attribute("data-map") == "released.dse_lambda_1"
        picker = page.locator("#layer-metric")
        picker.focus()
        page.keyboard.press("ArrowDown")  # the next metric
        assert page.locator(shown).count() == 1
        name = page.locator(shown).get_attribute("data-map")
        assert name == picker.input_value() != "released.dse_lambda_1"
        picker.select_option("dense_rankme")
        assert page.locator(shown).get_attribute("data-map") == "dense_rankme"
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        focused = "[document.activeElement.tagName, document.activeElement.title]"
        tag, full = page.evaluate(focused)
        series = RunTable.of(rows).column("dense_rankme", -1).series
        assert tag == "TD"
        assert float(full.split(" ± ")[0]) == pytest.approx(series[rows[0].name].value, rel=1e-2)
        for key in ("ArrowDown", "ArrowRight", "ArrowUp", "ArrowUp"):
            page.keyboard.press(key)
        readout = page.locator(f"{shown} .readout").inner_text()
        assert readout.startswith(f"epoch 20 ({rows[1].name}), layer −1: ")
        assert seen.complaints == []
        page.emulate_media(media="print")
        assert page.locator(f"{shown} table").is_visible()
        assert not picker.is_visible()
    with opened(chromium, data, tmp_path / "plain.html", scripts=False) as (page, _):
        assert page.locator(shown).count() == len(data.layers.maps)
        assert not page.locator("#layer-metric").is_visible()
