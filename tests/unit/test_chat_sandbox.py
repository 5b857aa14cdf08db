"""What a chat template cannot do: run on, grow, or see more than its data."""

from __future__ import annotations

import time

import pytest

from quire.frontend import chat_template
from quire.frontend.chat_sandbox import MAX_SECONDS, bounded
from quire.frontend.chat_template import ChatTemplate
from quire.protocol.errors import InvalidRequestError

ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "{% for a in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
]
GROWING = [
    "{% set n = namespace(s='ab') %}{% for i in range(90) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(s='ab') %}{% for i in range(90) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{% set n = namespace(s='ab') %}{% for i in range(90) %}{% set x %}{{ n.s }}{{ n.s }}{% endset %}"
    "{% set n.s = x %}{% endfor %}",
    "{% macro m(s) %}{{ s }}{{ s }}{% endmacro %}{% set n = namespace(s='ab') %}"
    "{% for i in range(90) %}{% set n.s = m(n.s) %}{% endfor %}",
    "{% set n = namespace(s='ab') %}{% for i in range(90) %}{% set n.s = [n.s, n.s] | join %}{% endfor %}",
    "{% set n = namespace(s='ab') %}{% for i in range(90) %}{% set n.s = ''.join([n.s, n.s]) %}{% endfor %}",
    "{% set n = namespace(s='ab') %}{% for i in range(90) %}"
    "{% set n.s = n.s | replace('a', 'aa') %}{% endfor %}",
    "{% set n = namespace(s='ab') %}{% for i in range(90) %}"
    "{% set n.s = n.s.replace('a', 'aa') %}{% endfor %}",
    "{% set n = namespace(s='ab') %}{% for i in range(90) %}{% set n.s = '%s%s' % (n.s, n.s) %}{% endfor %}",
    "{% set n = namespace(s='ab') %}{% for i in range(90) %}{% set n.s = '{0}{0}'.format(n.s) %}{% endfor %}",
    "{% set n = namespace(s='ab') %}{% for i in range(90) %}{% set n.s = '%s%s' | format(n.s, n.s) %}"
    "{% endfor %}",
    "{% set n = namespace(s=[1]) %}{% for i in range(90) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(x=9) %}{% for i in range(90) %}{% set n.x = n.x * n.x %}{% endfor %}",
    "{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}",
    "{% set x %}{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}{% endset %}",
    "{% macro m() %}" + "x" * 9999 + "{% endmacro %}{% set x %}{% for i in range(99999) %}{{ m() }}"
    "{% endfor %}{% endset %}",
    "{{ 'x' * 10**9 }}", "{{ 10 ** 10 ** 10 }}", "{{ 'x' * 999999999 }}", "{{ [1] * 999999999 }}",
    "{{ 'x'.center(999999999) }}", "{{ 'x'.ljust(999999999) }}", "{{ 'x'.zfill(999999999) }}",
    "{{ '\t'.expandtabs(999999999) }}", "{{ 'x' | center(999999999) }}",
    "{{ 'x\ny' | indent(999999999) }}", "{{ [1] | batch(999999999, 2) | list }}",
    "{{ [1] | slice(999999999) | list }}", "{{ '%999999999d' % 1 }}", "{{ '%*d' % (999999999, 1) }}",
    "{{ '%999999999d' | format(1) }}", "{{ '{:999999999}'.format(1) }}",
    "{{ [[1]] | tojson(indent=999999999) }}", "{{ range(999999999) | list }}",
]  # fmt: skip
PRYING = [
    "{{ ''.__class__.__mro__ }}", "{{ ''['__class__'] }}", "{{ '' | attr('__class__') }}",
    "{{ self._TemplateReference__context }}", "{{ cycler.__init__.__globals__ }}",
    "{{ messages.append(1) }}", "{{ messages.__len__() }}", "{{ raise_exception.__globals__ }}",
    "{{ '{0.__class__.__mro__}'.format('') }}", "{% include 'a' %}", "{% import 'a' as b %}",
    "{{ environment.tick }}",
]  # fmt: skip


@pytest.mark.parametrize("text", ENDLESS)
def test_an_endless_template_is_cut(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_template, "bounded", lambda: bounded(0.3))
    template = ChatTemplate(text)
    begin = time.thread_time()
    with pytest.raises(InvalidRequestError, match=r"takes longer than 0\.3|recursion"):
        template.render({"messages": []})
    assert time.thread_time() - begin < 1.5


@pytest.mark.parametrize("text", GROWING)
def test_a_growing_template_is_cut(text: str) -> None:
    template = ChatTemplate(text)
    begin = time.thread_time()
    with pytest.raises(InvalidRequestError) as caught:
        template.render({"messages": []})
    assert caught.value.param == "messages" and time.thread_time() - begin < MAX_SECONDS


@pytest.mark.parametrize("text", PRYING)
def test_a_template_sees_its_data_only(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        ChatTemplate(text + "{{ 1 / 0 }}").render({"messages": []})
    try:
        written = ChatTemplate(text).render({"messages": []})
    except InvalidRequestError:
        return
    assert written == ""


def test_what_templates_really_do_still_works() -> None:
    text = (
        "{% macro m(a, b='-') %}{{ a ~ b ~ a }}{% endmacro %}{{ m('x') }}{{ caller is defined }}"
        "{% for one in items if one > 1 %}{{ loop.index }}:{{ one }}{{ ', ' if not loop.last }}"
        "{% else %}none{% endfor %}|{% for one in [] %}{% else %}empty{% endfor %}|"
        "{{ items | map('string') | join('+') }}|{{ 'a-b' | replace('-', '+') }}|"
        "{{ ['a', 'b'] | join(', ') }}|{{ 'q' | center(5) }}|{{ 'a\nb' | indent(2) }}|"
        "{{ '%s-%03d' % ('a', 7) }}|{{ '%s' | format('z') }}|{{ '{}{}'.format(1, 2) }}|{{ 7 * 6 }}|"
        "{{ '=' * 5 }}|{{ [1] + [2] }}|{{ 'a' + 'b' }}|{{ 7 % 3 }}|{{ {'a': 'é<'} | tojson }}|"
        "{% set x %}set{{ 1 }}{% endset %}{{ x | upper }}|{{ 'x' * 0 }}|{{ ('a' * 20000) | length }}|"
        "{{ ('ab ' * 9000) | wordwrap(80) | length }}|{{ ('a' * 20000) | truncate(3) }}|{{ none }}"
        "{% for m in items %}{% if m == 2 %}{% continue %}{% endif %}{{ m }}{% break %}{% endfor %}|"
        "{% call(v) outer() %}{{ v }}{% endcall %}"
    )
    text = "{% macro outer() %}<{{ caller(5) }}>{% endmacro %}" + text
    written = ChatTemplate(text).render({"items": [1, 2, 3]})
    assert written == (
        "x-xFalse1:2, 2:3|empty|1+2+3|a+b|a, b|  q  |a\n  b|a-007|z|12|42|=====|[1, 2]|ab|1|"
        '{"a": "é<"}|SET1||20000|26999|...|None1|<5>'
    ), written
