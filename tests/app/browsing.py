"""What a visitor of the page does: tests of it in a browser share these."""

import os
from pathlib import Path

PATIENCE_MS = 120_000


def open_tab(browser, name):
    """Open a tab, which may be in the menu of those that the screen has no place for."""
    browser.locator("[role=tab]:visible").first.wait_for()
    button = browser.get_by_role("tab", name=name)
    if not button.first.is_visible():
        browser.locator("button.overflow-menu, .overflow-menu > button").first.click()
        button = browser.locator(".overflow-dropdown button", has_text=name)
    button.first.click()
    panel = browser.locator("[role=tabpanel]:visible").first
    panel.wait_for()
    return panel


def few_steps(panel):
    panel.get_by_role("button", name="Settings").click()
    panel.get_by_label("number input for Steps").fill("2")
    weight = panel.get_by_label("number input for Guidance weight")
    if weight.count():
        weight.fill("0")


def photograph(browser, name, *, whole=True):
    """Keep a picture where SOUNDREEL_SCREENSHOTS says, of the page or what the screen shows."""
    folder = os.environ.get("SOUNDREEL_SCREENSHOTS")
    if folder:
        browser.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=whole)


def upload(panel, path):
    """Give a file to a tab, and wait until the tab has it."""
    field = panel.locator(".upload:visible")
    field.locator("input[type=file]").set_input_files(str(path))
    field.get_by_role("button", name="Clear").wait_for()
