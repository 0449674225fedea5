"""Headless Chromium at the public doors of a deployment, by WebDriver (W3C) with Selenium's client."""

from __future__ import annotations

import base64
import hashlib
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
# Seconds for anything that a page does.
PATIENCE = 60
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1200,1000",
)
T = TypeVar("T")


def why_not() -> str:
    """The reason why there is no browser here; "" when there is one."""
    missing = [name for name in (CHROMIUM, DRIVER) if not shutil.which(name)]
    return f"no {missing[0]}: apt-get install chromium chromium-driver" if missing else ""


class Browser:
    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get(url)

    def until(self, what: str, found: Callable[[], T]) -> T:
        """Wait until `found` gives something; pages change under our hands, so what it raises counts as "not yet"."""

        def tried(_: object) -> T | None:
            try:
                return found()
            except (WebDriverException, StopIteration):
                return None

        result: T = WebDriverWait(self.driver, PATIENCE, 0.2).until(
            tried, f"no {what} on {self.driver.current_url}"
        )
        return result

    def seen(self, css: str, text: str = "") -> WebElement:
        """The first visible element of a selector whose text holds `text`."""
        return self.until(
            f"{css} {text!r}",
            lambda: next(
                one
                for one in self.driver.find_elements(By.CSS_SELECTOR, css)
                if one.is_displayed() and text in one.text
            ),
        )

    def click(self, css: str, text: str = "") -> None:
        def clicked() -> bool:
            self.seen(css, text).click()
            return True

        self.until(f"{css} {text!r} that can be clicked", clicked)

    def type(self, css: str, text: str) -> None:
        self.seen(css).send_keys(text)

    def choose_file(self, file: Path, click: Callable[[], None]) -> None:
        """Give a file to the page's own chooser, which `click` opens: the window for it is nobody's to answer."""
        self.driver.execute_script(
            "HTMLInputElement.prototype.click = function () { this.id = 'given'; document.body.appendChild(this) }"
        )
        click()
        given = self.until("file chooser", lambda: self.driver.find_element(By.ID, "given"))
        given.send_keys(str(file))

    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "body").text

    def picture(self, file: Path) -> None:
        """A screenshot."""
        file.parent.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(file))


@contextmanager
def browser(host: str, address: str, ca: str, folder: Path) -> Iterator[Browser]:
    """A browser that finds `host` at `address` and trusts its certificate, which was checked against `ca` (PEM)."""
    options = Options()
    options.binary_location = CHROMIUM
    for argument in (
        *QUIET,
        f"--user-data-dir={folder / 'browser'}",
        f"--host-resolver-rules=MAP {host} {address}",
        # Chromium takes no authority from a file.
        f"--ignore-certificate-errors-spki-list={_key(host, address, ca)}",
    ):
        options.add_argument(argument)
    driver = Chrome(options=options, service=Service(DRIVER))
    try:
        driver.set_page_load_timeout(PATIENCE)
        yield Browser(driver)
    finally:
        driver.quit()


def _key(host: str, address: str, ca: str) -> str:
    """Digest of the public key that the server shows, in base64."""
    context = ssl.create_default_context(cadata=ca)
    with (
        socket.create_connection((address, 443), 20) as plain,
        context.wrap_socket(plain, server_hostname=host) as shown,
    ):
        certificate = x509.load_der_x509_certificate(shown.getpeercert(binary_form=True) or b"")
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(key).digest()).decode()
