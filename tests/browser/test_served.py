"""What the dashboard answers to whom, and that it makes a browser ask nobody else."""

import http.client
import json
import socketserver
import threading
import zipfile
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from safetensors.numpy import save

from tests.support.chromium import calm, choose_prompt, upload, window
from tests.support.hostile_text import HOSTILE
from tests.support.served import PATHS

pytestmark = pytest.mark.slow
OF_CHROMIUM = "content-autofill.googleapis.com"  # it asks of its own accord wherever there is a field to fill in
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def ask(dashboard: str, path: str, **headers: str) -> http.client.HTTPResponse:
    """The answer to a request with these headers and no others, over a socket of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", urlsplit(dashboard).port)
    connection.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    connection.close()
    return answer


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_its_own_names_are_answered_at_any_port(dashboard, host):
    port = urlsplit(dashboard).port
    for at in (f":{port}", ":80", ""):
        assert ask(dashboard, "/_stcore/health", Host=host + at).status == 200
        assert ask(dashboard, "/_stcore/stream", Host=host + at, Origin=f"http://{host}{at}", **WEBSOCKET).status == 101


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "localhost@evil.example", "127.0.0.2", "0.0.0.0", ""]
)
def test_a_foreign_name_that_leads_here_is_refused_whatever_it_says_it_comes_from(dashboard, host):
    host = host.format(port=urlsplit(dashboard).port)
    for origin in ({}, {"Origin": f"http://{host}"}, {"Origin": dashboard}):
        for path in ("/", "/neighbours", "/_stcore/health", "/_stcore/host-config", "/media/any.csv"):
            assert ask(dashboard, path, Host=host, **origin).status == 403, path
        assert ask(dashboard, "/_stcore/stream", Host=host, **origin, **WEBSOCKET).status == 403


def test_a_request_without_a_name_is_refused(dashboard):
    assert ask(dashboard, "/").status in (400, 403)
    assert ask(dashboard, "/_stcore/stream", **WEBSOCKET).status in (400, 403)


def test_a_page_of_another_site_gets_no_connection_and_no_frame(dashboard):
    own = urlsplit(dashboard).netloc
    assert ask(dashboard, "/_stcore/stream", Host=own, Origin="http://evil.example", **WEBSOCKET).status == 403
    for path in ("/", "/neighbours", "/_stcore/health", "/no/such/page"):
        answer = ask(dashboard, path, Host=own)
        assert answer.headers.get_all("X-Frame-Options") == ["SAMEORIGIN"]
        assert "frame-ancestors 'self'" in answer.headers["Content-Security-Policy"]


def test_an_address_of_before_is_answered_with_where_to_go_and_stays_on_this_host(dashboard):
    own = urlsplit(dashboard).netloc
    answer = ask(dashboard, "/neighbours?prompt=plural-words-1&k=3", Host=own)
    assert (answer.status, answer.headers["Location"]) == (307, "/prompt?tab=Tokens&prompt=plural-words-1&k=3")
    answer = ask(dashboard, "/neighbours?prompt=%0d%0aX-Evil:y//evil.example", Host=own)
    assert answer.headers["Location"].startswith("/prompt?") and answer.headers["X-Evil"] is None


@pytest.fixture
def nowhere():
    """The address of a proxy that lets nothing through, and what it was asked for."""
    asked = []

    class Refuse(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.rfile.readline().decode("latin-1").strip())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Refuse) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def test_what_a_file_says_is_no_link_and_no_picture_on_the_pages(page, tmp_path):
    config = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3, "token_dim": 576, "base_model_name_or_path": HOSTILE}
    with zipfile.ZipFile(tmp_path / "[n](http:evil.example) www.evil.example.zip", "w") as archive:
        archive.writestr("adapter_config.json", json.dumps(config))
        archive.writestr(
            "adapter_model.safetensors", save({"prompt_embeddings": np.random.default_rng(0).standard_normal((3, 576)).astype(np.float32)})
        )
    upload(page, tmp_path / "[n](http:evil.example) www.evil.example.zip")
    expect(page.get_by_role("heading", name="What was checked")).to_be_visible()
    said_by_nobody(page)
    page.get_by_role("button", name="Read this prompt").click()
    expect(page.get_by_text("is not followed")).to_be_visible()
    said_by_nobody(page)
    page.get_by_role("textbox", name="Model of").fill("smollm2-135m")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="What it does", exact=True)).to_be_visible()
    said_by_nobody(page)
    page.get_by_role("tab", name="Tokens").click()
    expect(page.get_by_role("heading", name="All tokens")).to_be_visible()
    said_by_nobody(page)
    page.get_by_role("link", name="Atlas").click()
    expect(page.get_by_role("heading", name="Atlas", level=1)).to_be_visible()
    calm(page)
    choose_prompt(page, "(your file)")
    said_by_nobody(page)


def said_by_nobody(page: Page) -> None:
    """The page speaks of the foreign address, and there is no link to it, no picture of it and nothing in bold."""
    calm(page)
    expect(page.get_by_text("evil.example").first).to_be_visible()
    for what in (
        "a[href*='evil']",
        "img[src*='evil']",
        "a[href^='mailto']",
        "a[href^='javascript']",
        "strong:text-is('b')",
        "[data-testid='stMarkdownContainer'] :text-is('delete')",
    ):
        expect(page.locator(what)).to_have_count(0)


def test_no_page_asks_another_host_for_anything(chromium, dashboard, nowhere, batched):
    proxy, asked = nowhere
    context = window(chromium, dashboard, proxy={"server": proxy, "bypass": "127.0.0.1"})
    page = context.new_page()
    foreign = []
    page.on("request", lambda request: foreign.append(request.url) if not request.url.startswith((dashboard, "data:", "blob:")) else None)
    page.on("websocket", lambda socket: foreign.append(socket.url) if urlsplit(socket.url).netloc != urlsplit(dashboard).netloc else None)
    for path in (*PATHS, f"/library?tab=Collection&collection={batched.name}"):
        page.goto(path)
        calm(page)
        for icon in page.locator("link[rel~='icon']").all():  # Chromium fetches it beside the page and tells nobody
            assert page.evaluate("href => new URL(href, location.href).href", icon.get_attribute("href")).startswith((dashboard, "data:"))
    assert not foreign
    assert not [line for line in asked if OF_CHROMIUM not in line]
    page.evaluate("fetch('http://foreign.example/').catch(() => null)")
    assert any("foreign.example" in line for line in asked)  # it would have been seen
    context.close()
