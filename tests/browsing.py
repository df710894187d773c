"Chromium without a network, for tests that open the report."
import json, shutil, time

import pytest


def chromium():
    "A generator for a fixture: the driver of a browser, which is closed in the end."
    from selenium import webdriver
    program, driver = shutil.which('chromium') or shutil.which('google-chrome'), shutil.which('chromedriver')
    if not (program and driver): pytest.skip('no Chromium with its driver on this machine')
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for a in ('--headless', '--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync',
            '--no-first-run'): options.add_argument(a)
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    b = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield b
    b.quit()


def visit(browser, page, width=1280):
    "Open the file `page` in a window `width` pixels wide."
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': width < 700})
    browser.get(page.as_uri())
    deadline = time.monotonic() + 10
    while browser.execute_script('return document.readyState') != 'complete' and time.monotonic() < deadline: time.sleep(.05)


def complaints(browser):
    "What the page complained of, and what it fetched from elsewhere, since the last call."
    errors = [e['message'] for e in browser.get_log('browser') if e['level'] == 'SEVERE']
    sent = [m['params']['request']['url'] for e in browser.get_log('performance')
        if (m := json.loads(e['message'])['message'])['method'] == 'Network.requestWillBeSent']
    return errors + [u for u in sent if not u.startswith(('file:', 'data:', 'blob:'))]


def pages(html):
    "The pages of a book in the folder `html`, without those that Sphinx adds."
    return sorted(p for p in html.rglob('*.html') if '_static' not in p.parts and p.name not in ('genindex.html', 'search.html'))


def without_alternative(html):
    "Pictures of the book in the folder `html` that do not say what is seen in them."
    from bs4 import BeautifulSoup
    found = [(p.relative_to(html), i.get('src'), i.get('alt')) for p in pages(html) for i in BeautifulSoup(p.read_text(encoding='utf-8'),
        'html.parser').select('article img')]
    return [f for f in found if len((f[2] or '').split()) < 3 or f[2] == f[1]], len(found)
