"""Write `docs/images/page.jpg`, the web page with a result: `python docs/photograph_page.py`.

Needs the `app` extra, Playwright, and Chromium.
"""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Error, Page, sync_playwright

TARGET = Path(__file__).parent / "images" / "page.jpg"
WIDTH, HEIGHT, QUALITY = 1280, 1160, 80
PATIENCE_MS = 300_000


def main() -> None:
    """Serve the page with the default model, make a clip, and photograph it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "soundreel", "app", "--port", port]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        photograph(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait()


def photograph(address: str) -> None:
    """Write the photograph of a page that may still be starting."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(PATIENCE_MS)
        while not reached(page, address):
            page.wait_for_timeout(500)
        page.locator("img[src*='contact-sheet']").wait_for()
        page.get_by_role("button", name="Again with another seed").first.click()
        page.get_by_text("seed 1, ").first.wait_for()
        page.mouse.move(1, 1)
        page.wait_for_timeout(2_000)  # the clip has begun to play
        page.screenshot(path=TARGET, type="jpeg", quality=QUALITY, full_page=True)
        browser.close()


def reached(page: Page, address: str) -> bool:
    """Open the address, or tell that nobody answers there yet."""
    try:
        page.goto(address)
    except Error:
        return False
    return True


if __name__ == "__main__":
    main()
