"""The built-in page in headless Chromium, over the demo model: a chat, and the engine while it works."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.e2e.served import Served, served

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMEDRIVER = shutil.which("chromedriver")
KEY = "open sesame"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1440,900",
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or CHROMEDRIVER is None,
        reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
    ),
]

# What the page gets instead of an answer: events given by hand, then silence until it is stopped.
PRETENDED = """
const real = window.fetch;
window.fetch = async (url, options) => {
  if (!String(url).includes("chat/completions")) return real(url, options);
  window.asked = JSON.parse(options.body);
  const stream = new ReadableStream({ start(out) {
    const send = (delta, more = {}) => out.enqueue(new TextEncoder().encode(
      "data: " + JSON.stringify({ choices: [{ index: 0, delta, finish_reason: null, ...more }] }) + "\\n\\n"));
    send({ role: "assistant", content: "" });
    for (const delta of arguments[0]) send(delta);
    if (arguments[1]) { send({}, { finish_reason: arguments[1], seed: 7 }); out.close(); }
    options.signal.addEventListener("abort", () => out.error(new DOMException("stopped", "AbortError")));
  } });
  return new Response(stream, { headers: { "content-type": "text/event-stream" } });
};
""".replace("arguments", "given")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`quire serve` without a model, with a key."""
    with served(tmp_path_factory.mktemp("ui"), "--api-key", KEY) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    yield driver
    driver.quit()


class Page:
    """The page, open; `until` waits for what must become true."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def text(self, name: str) -> str:
        return str(self.browser.find_element(By.ID, name).get_attribute("textContent"))

    def number(self, name: str) -> float:
        return float(self.text(name).replace(",", "") or "nan")

    def all(self, selector: str) -> list[Any]:
        return list(self.browser.find_elements(By.CSS_SELECTOR, selector))

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def until(self, what: Callable[[], Any], seconds: float = 30) -> Any:
        return WebDriverWait(self.browser, seconds, 0.05).until(lambda _: what())

    def say(self, text: str) -> None:
        field = self.browser.find_element(By.ID, "message")
        field.send_keys(text)
        field.send_keys(Keys.ENTER)

    def is_idle(self) -> bool:
        return bool(self.browser.find_element(By.ID, "send").is_displayed())


@pytest.fixture
def page(server: Served, browser: Any) -> Page:
    """The page as one finds it who gave the key before, with a fixed temperature."""
    return opened(server, browser)


def opened(server: Served, browser: Any) -> Page:
    browser.get(server.url)
    browser.execute_script("sessionStorage.setItem('quire.key', arguments[0])", KEY)
    browser.execute_script("localStorage.clear(); localStorage.setItem('quire.temperature', '0')")
    browser.get(server.url)
    browser.get_log("browser")
    found = Page(browser)
    found.until(lambda: found.text("model") == "quire-demo")
    return found


def _complaints(page: Page) -> list[str]:
    """What the browser says against the page, a refused script or style for example."""
    return [one["message"] for one in page.browser.get_log("browser") if one["level"] == "SEVERE"]


def pieces_of_an_answer(page: Page) -> list[str]:
    """What was to be seen of it, one after the other."""
    page.run(
        "window.seen = new Set(); new MutationObserver(() => {"
        "  const text = document.querySelector('.assistant .text')?.textContent;"
        "  if (text) window.seen.add(text);"
        "}).observe(document.getElementById('log'), {childList: true, subtree: true})"
    )
    page.say("What is the capital of France?")
    page.until(lambda: page.all(".assistant footer span"))
    assert page.all(".assistant .text")[0].text == "The capital of France is Paris."
    return sorted(page.run("return [...window.seen]"), key=len)


def test_a_message_is_answered_piece_by_piece(server: Served, browser: Any) -> None:
    for _ in range(5):  # all of it may come between two frames of the browser
        page = opened(server, browser)
        seen = pieces_of_an_answer(page)
        if len(seen) > 1:
            break
    assert len(seen) > 1, "the answer came in one piece, five times"
    assert all("The capital of France is Paris.".startswith(one) for one in seen)
    footer = page.all(".assistant footer")[0].text
    assert "8 tokens" in footer and "seed" in footer
    assert not page.browser.find_element(By.ID, "welcome").is_displayed()
    page.say("What is the capital of Ghana?")
    page.until(lambda: len(page.all(".assistant footer span")) > 4)
    assert page.all(".assistant .text")[1].text == "The capital of Ghana is Accra."
    page.browser.find_element(By.ID, "new-chat").click()
    assert not page.all(".msg") and page.is_idle()
    assert _complaints(page) == []


def test_the_map_fills_while_a_request_runs_and_empties_when_it_ends(
    page: Page, server: Served
) -> None:
    leave = threading.Event()

    def generate() -> None:
        body = {"prompt": "Once " * 200, "max_tokens": 7000, "ignore_eos": True, "stream": True}
        url, key = server.url + "/v1/completions", {"authorization": f"Bearer {KEY}"}
        with httpx.stream("POST", url, json=body, headers=key, timeout=60) as answer:
            assert answer.status_code == 200
            for _ in answer.iter_lines():
                if leave.is_set():
                    return

    page.until(lambda: page.number("cells-free") > 0)
    assert page.number("cells-held") == 0
    client = threading.Thread(target=generate)
    client.start()
    try:
        page.until(lambda: page.number("cells-held") >= 7)  # 200 tokens in blocks of 32
        page.until(lambda: page.number("running") == 1 and page.number("rate") > 0)
        row = page.until(lambda: page.all("#requests .running"))[0]
        assert "running" in row.text
        picture = page.run(
            "const c = document.querySelector('#maps canvas');"
            "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
            "const s = new Set(); for (let i = 0; i < d.length; i += 4)"
            "  if (d[i + 3] === 255) s.add(d[i] + ',' + d[i + 1] + ',' + d[i + 2]); return s.size"
        )
        assert picture >= 2, "the map is of one colour"
        before = page.number("cells-held")
        page.until(lambda: page.number("cells-held") > before)
    finally:
        leave.set()
        client.join()
    page.until(lambda: page.number("cells-held") == 0 and page.number("running") == 0)
    assert page.number("cells-cached") >= 7
    assert page.text("requests") == "None now."
    assert page.run(
        "return document.getElementById('chart-itl').getAttribute('aria-label')"
    ).endswith("s")
    assert _complaints(page) == []


def test_thoughts_and_calls_are_folded_and_what_a_model_writes_is_never_markup(page: Page) -> None:
    hostile = "<img src=x onerror='window.broken=1'> <script>window.broken=1</script> "
    deltas: list[dict[str, Any]] = [
        {"reasoning": "First I think. "},
        {"reasoning": hostile},
        {"content": f"{hostile}\n\n**bold** `{hostile}`\n\n- one\n- [two](javascript:alert(1))\n"},
        {"content": "\n```python\nx = '<b>'\n```\n[safe](https://example.org/a)"},
        {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "get_weather"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]},
    ]
    page.run("const given = arguments;" + PRETENDED, deltas, "tool_calls")
    page.say("Hello")
    page.until(lambda: page.all(".assistant footer span"))
    folds = page.all(".assistant .fold")
    assert [fold.get_attribute("open") for fold in folds] == [None, None]
    assert [fold.find_element(By.TAG_NAME, "summary").text for fold in folds] == [
        "Thought", "Calls get_weather"
    ]  # fmt: skip
    assert '"city": "Paris"' in folds[1].get_attribute("textContent")
    text = page.all(".assistant .text")[0]
    assert "<script>window.broken=1</script>" in text.text
    assert text.find_element(By.TAG_NAME, "strong").text == "bold"
    assert text.find_element(By.CSS_SELECTOR, "pre code").text == "x = '<b>'"
    assert [one.get_attribute("href") for one in page.all(".text a")] == ["https://example.org/a"]
    assert not page.all("#log img, #log script") and page.run("return window.broken") is None
    page.run("document.querySelectorAll('.fold').forEach((one) => (one.open = true))")
    field = page.all(".fold input")[0]
    field.send_keys("sunny", Keys.ENTER)
    page.until(lambda: page.run("return window.asked.messages.length") == 3)
    last = page.run("return window.asked.messages")
    assert [one["role"] for one in last] == ["user", "assistant", "tool"]
    assert last[2] == {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
    assert last[1]["tool_calls"][0]["function"]["arguments"] == '{"city": "Paris"}'


def test_an_answer_can_be_stopped_and_settings_are_sent(page: Page) -> None:
    page.run("const given = arguments;" + PRETENDED, [{"content": "It goes on"}], "")
    page.all("#controls summary")[0].click()
    for name, value in {"top_p": "0.5", "top_k": "3", "max_tokens": "9", "seed": "42"}.items():
        page.browser.find_element(By.ID, name).send_keys(value)
    page.browser.find_element(By.ID, "system").send_keys("Be brief.")
    page.say("Go on")
    page.until(lambda: "It goes on" in page.text("log"))
    assert not page.is_idle() and page.all(".assistant.live")
    page.browser.find_element(By.ID, "message").send_keys(Keys.ESCAPE)
    page.until(page.is_idle)
    assert "stopped" in page.all(".assistant footer")[0].text and not page.all(".assistant.live")
    asked = page.run("return window.asked")
    assert {name: asked[name] for name in ("temperature", "top_p", "top_k", "max_tokens", "seed")} == {
        "temperature": 0, "top_p": 0.5, "top_k": 3, "max_tokens": 9, "seed": 42
    }  # fmt: skip
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    page.say("And again")
    page.until(lambda: page.all(".assistant.live"))
    page.browser.find_element(By.ID, "new-chat").click()
    page.until(page.is_idle)
    assert not page.all(".msg")
    page.say("Anew")
    page.until(lambda: page.all(".assistant.live"))
    assert [one["content"] for one in page.run("return window.asked.messages")] == [
        "Be brief.",
        "Anew",
    ]


def test_errors_are_shown_and_a_wrong_key_asks_for_the_right_one(page: Page) -> None:
    page.run("document.getElementById('temperature').value = '-1'")
    page.say("Hello")
    problem = page.until(lambda: page.all(".problem"))[0]
    assert "temperature" in problem.text and "-1" in problem.text and page.is_idle()
    field = page.browser.find_element(By.ID, "message")
    assert field.get_attribute("value") == "Hello" and not page.all(".msg")
    page.run(
        "const key = document.getElementById('key'); key.value = 'wrong';"
        "key.dispatchEvent(new Event('change'))"
    )
    page.until(lambda: "wants an API key" in page.text("engine-notice"))
    page.say("Hello again")
    page.until(lambda: "wants an API key" in page.text("log"))
    field = page.browser.find_element(By.ID, "key")
    field.clear()
    field.send_keys(KEY, Keys.TAB)
    page.until(lambda: not page.browser.find_element(By.ID, "engine-notice").is_displayed())


def test_the_page_fits_a_phone(page: Page) -> None:
    size = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    page.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for tab, other in (("engine", "chat"), ("chat", "engine")):
            page.browser.find_element(By.ID, f"tab-{tab}").click()
            assert page.browser.find_element(By.ID, tab).is_displayed()
            assert not page.browser.find_element(By.ID, other).is_displayed()
            assert page.run("return document.documentElement.scrollWidth") <= 360
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
