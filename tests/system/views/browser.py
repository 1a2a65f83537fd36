"""Tests the status page in Chromium, with mouse, keyboard, a phone's screen size, and the dark color scheme.

browser.py URL [DIRECTORY]: prints a line for each check, "ok" or "FAIL", and writes screenshots to the directory.
"""

import base64
import json
import os
import subprocess
import sys
import tempfile

HOSTILE = ['<script>document.title = 1<!--', '"><img src=x onerror=alert(1)>', "'onclick='alert(1)"]


class Browser:
    """Chromium, controlled with the DevTools protocol over a pipe."""

    def __init__(self, profile):
        down, self.commands = os.pipe()
        self.events, up = os.pipe()

        def inherit():
            # Chromium reads from descriptor 3 and writes to 4. The ends may be 3 or 4 already, so they are copied away first.
            copies = os.dup2(down, 98), os.dup2(up, 99)
            os.dup2(copies[0], 3), os.dup2(copies[1], 4)

        self.process = subprocess.Popen(
            ['chromium', '--headless=new', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
             '--no-first-run', '--disable-extensions', '--remote-debugging-pipe', f'--user-data-dir={profile}'],
            close_fds=False, preexec_fn=inherit, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(down)
        os.close(up)
        self.number, self.received, self.session = 0, b'', None
        self.problems = []
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        self.session = self.call('Target.attachToTarget', targetId=target, flatten=True)['sessionId']
        for domain in 'Page', 'Runtime', 'Log', 'Network', 'Accessibility':
            self.call(f'{domain}.enable')

    def call(self, method, **params):
        self.number += 1
        message = {'id': self.number, 'method': method, 'params': params}
        if self.session:
            message['sessionId'] = self.session
        os.write(self.commands, json.dumps(message).encode() + b'\0')
        return self.until(lambda message: message.get('id') == self.number)['result']

    def until(self, wanted):
        while True:
            while b'\0' not in self.received:
                chunk = os.read(self.events, 1 << 16)
                if not chunk:
                    raise EOFError('Chromium exited')
                self.received += chunk
            message, self.received = self.received.split(b'\0', 1)
            message = json.loads(message)
            self.note(message)
            if wanted(message):
                return message

    def note(self, message):
        method, params = message.get('method'), message.get('params', {})
        if method in ('Runtime.consoleAPICalled', 'Runtime.exceptionThrown', 'Log.entryAdded',
                      'Page.javascriptDialogOpening', 'Network.loadingFailed'):
            self.problems.append((method, json.dumps(params)[:300]))
        if method == 'Network.responseReceived' and params['response']['status'] >= 400:
            self.problems.append((method, params['response']['url']))

    def follow(self, act):
        """Performs an action that loads another page, and waits until it is loaded."""
        act()
        self.until(lambda message: message.get('method') == 'Page.loadEventFired')

    def open(self, url):
        self.follow(lambda: self.call('Page.navigate', url=url))

    def value(self, expression):
        result = self.call('Runtime.evaluate', expression=expression, returnByValue=True)
        if 'exceptionDetails' in result:
            raise ValueError(result['exceptionDetails'])
        return result['result'].get('value')

    def click(self, selector):
        x, y = self.value(f'''(() => {{ const e = document.querySelector({json.dumps(selector)});
            e.scrollIntoView({{block: "center"}}); const r = e.getBoundingClientRect();
            return [r.x + r.width / 2, r.y + r.height / 2] }})()''')
        for kind in 'mousePressed', 'mouseReleased':
            self.call('Input.dispatchMouseEvent', type=kind, x=x, y=y, button='left', clickCount=1)

    def press(self, key, code):
        text = {'text': '\r'} if key == 'Enter' else {}
        self.call('Input.dispatchKeyEvent', type='keyDown', key=key, windowsVirtualKeyCode=code, **text)
        self.call('Input.dispatchKeyEvent', type='keyUp', key=key, windowsVirtualKeyCode=code)

    def screen(self, width, height, scheme):
        self.call('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': scheme}])

    def roles(self):
        nodes = self.call('Accessibility.getFullAXTree')['nodes']
        return {node['role']['value'] for node in nodes if not node.get('ignored') and 'role' in node}

    def shot(self, name):
        if len(sys.argv) > 2:
            data = self.call('Page.captureScreenshot')['data']
            with open(os.path.join(sys.argv[2], name + '.png'), 'wb') as file:
                file.write(base64.b64decode(data))


def check(what, truth, seen=''):
    print('ok' if truth else 'FAIL', what, '' if truth else seen, flush=True)


def column(browser, label):
    """Returns the numbers in a column of the table."""
    cells = browser.value(f'[...document.querySelectorAll("tbody td[data-label=\'{label}\']")].map(c => c.textContent)')
    return [int(cell.replace(',', '')) for cell in cells]


def names(browser):
    return browser.value('[...document.querySelectorAll("tbody bdi")].map(c => c.textContent)')


def contrasts(browser):
    """Returns the contrast of each kind of text with its background (WCAG 2), the lowest first."""
    return sorted(browser.value('''(() => {
        const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
            .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b };
        const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
            if (!c.startsWith("rgba(0, 0, 0, 0")) return c } return "rgb(255, 255, 255)" };
        return ["body", "header p", "dt", "dd + dd", "figcaption", ".key", ".alarm", ".alarm a", "td", "td .none", "th a",
                "summary", "code", "footer"]
            .map(s => [s, document.querySelector(s)]).filter(([, e]) => e)
            .map(([s, e]) => { const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((a, b) => b - a);
                return [(a + .05) / (b + .05), s] })
    })()'''))


def run(browser, url):
    browser.screen(1200, 900, 'light')
    browser.open(url)
    first = names(browser)
    check('the first page lists the first hundred torrents by name', len(first) == 100 and first == sorted(first, key=str.lower), first)
    check('the style sheet is applied', browser.value('getComputedStyle(document.querySelector("dl")).display') == 'grid')
    browser.shot('light')

    browser.follow(lambda: browser.click('thead th:nth-child(3) a'))
    seeders = column(browser, 'Seeders')
    state = browser.value('document.querySelector("[aria-sort=descending]").textContent')
    check('a click on Seeders sorts by seeders, descending', seeders[0] > 0 and seeders == sorted(seeders, reverse=True) and 'Seeders' in state,
          (seeders, state))
    browser.follow(lambda: browser.click('thead th:nth-child(3) a'))
    seeders = column(browser, 'Seeders')
    check('a second click sorts ascending', seeders == sorted(seeders), seeders)
    browser.follow(lambda: browser.click('nav a'))
    check('the next page is page 2', browser.value('document.querySelector("nav span").textContent').startswith('Page 2'))
    check('the rows of page 2 continue the order', column(browser, 'Seeders')[0] >= seeders[-1], column(browser, 'Seeders'))

    for _ in range(40):
        browser.press('Tab', 9)
        if browser.value('document.activeElement.id') == 'search':
            break
    outline = browser.value('getComputedStyle(document.activeElement).outlineStyle')
    check('the tab key reaches the search field, which has a visible focus', browser.value('document.activeElement.id') == 'search'
          and outline == 'solid', outline)
    browser.call('Input.insertText', text='<script>')
    browser.follow(lambda: browser.press('Enter', 13))
    found = names(browser)
    check('a search finds a name with special characters', found == [HOSTILE[0]], found)
    check('the search field keeps its text', browser.value('document.querySelector("#search").value') == '<script>')
    browser.open(url + '?search=no+such')
    check('a search without results reports that', 'No torrent matches the search' in browser.value('document.body.textContent'))

    browser.open(url)
    check('hostile names are shown as text', set(HOSTILE) <= set(names(browser)), names(browser))
    check('no name becomes markup of the page',
          browser.value('document.querySelectorAll("script, img, iframe, [onclick], [onerror]").length') == 0
          and browser.value('document.title') == 'BitTorrent tracker: status')

    for scheme in 'light', 'dark':
        browser.screen(1200, 900, scheme)
        browser.open(url + '?sort=leechers')
        lowest = contrasts(browser)[0]
        check(f'text in the {scheme} color scheme has a contrast of at least 4.5', lowest[0] >= 4.5, lowest)
    background = browser.value('getComputedStyle(document.body).backgroundColor')
    check('the dark color scheme has a dark background', max(int(part) for part in background[4:-1].split(',')) < 64, background)
    browser.shot('dark')

    for scheme in 'light', 'dark':
        browser.screen(360, 740, scheme)
        browser.open(url + '?sort=last_seed')
        browser.shot(f'narrow-{scheme}')
    width = browser.value('document.documentElement.scrollWidth')
    check('the page fits the width of a phone', width <= 360, width)
    sizes = browser.value('[...document.querySelectorAll("td")].every(c => c.getBoundingClientRect().width > 0)')
    check('all cells are visible on a phone', sizes)
    roles = browser.roles()
    wanted = {'table', 'row', 'columnheader', 'rowheader', 'cell', 'searchbox', 'banner', 'main', 'contentinfo', 'navigation'}
    check('the page has the roles that screen readers need', wanted <= roles, wanted - roles)
    check('the console has no messages, and no request failed', not browser.problems, browser.problems)


if __name__ == '__main__':
    # Child processes of Chromium may run a moment longer, and write to the profile while it is removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(profile)
        try:
            run(browser, sys.argv[1])
        finally:
            browser.process.kill()
            browser.process.wait()
