"""jinja2 environment as Hugging Face transformers configures it for chat templates."""

import copy
import datetime
import json
import re

import jinja2
import jinja2.ext
import jinja2.sandbox

# Time of strftime_now; the tests of this repository use the same.
NOW = datetime.datetime(2026, 3, 5, 14, 7, 9)

ADDRESS = re.compile(r"0x[0-9a-f]{6,}")


class Generation(jinja2.ext.Extension):
    """The tag `generation`, which marks the assistant's text."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    @staticmethod
    def _text(caller):
        return caller()


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def strftime_now(form):
    return NOW.strftime(form)


def make():
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


def render(environment, source, variables):
    """Output of a template, or "raises " and the error, without object addresses."""
    try:
        text = environment.from_string(source).render(**copy.deepcopy(variables))
        text.encode()
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"
    return ADDRESS.sub("0x", text)
