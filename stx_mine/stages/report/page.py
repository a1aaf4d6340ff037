"""The page: templates filled with what is told of a run; one file that needs no other."""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined, select_autoescape

from stx_mine.masking import escaped
from stx_mine.stages.report.core.plot import HEIGHT, WIDTH, Plot, drawn
from stx_mine.stages.report.examples import KINDS_OF_EXAMPLES
from stx_mine.stages.report.facts import SECTIONS, RunFacts
from stx_mine.stages.report.plots import plots_of

_TEMPLATES = "templates"


def render_page(facts: RunFacts, version: str) -> str:
    """The page as HTML.

    Whatever comes from users is escaped, and the page allows no script but its own: its policy
    names the digest of that one.
    """
    environment = _environment()
    script = environment.get_template("page.js").render()
    plots = {
        section: [drawn(plot) for plot in some if plot.lines]
        for section, some in plots_of(facts).items()
    }
    return environment.get_template("page.jinja").render(
        facts=facts,
        sections=SECTIONS,
        plots=plots,
        kinds=KINDS_OF_EXAMPLES,
        width=WIDTH,
        height=HEIGHT,
        version=version,
        zip=zip,
        script_digest=b64encode(sha256(script.encode()).digest()).decode(),
    )


def render_picture(plot: Plot) -> str:
    """A plot by itself, as SVG that needs no other file; it has a line at least."""
    found = _environment().get_template("picture.jinja")
    return found.render(drawing=drawn(plot), width=WIDTH, height=HEIGHT)


@cache
def _environment() -> Environment:
    """What reads and fills the templates, each compiled once."""
    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=select_autoescape(["jinja"]),
        finalize=_plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "size": _size, "percent": "{:.1%}".format}
    return environment


def _read(name: str) -> str:
    return (files("stx_mine.stages.report") / _TEMPLATES / name).read_text("utf-8")


def _plain(value: object) -> object:
    """What is written: texts without characters that change what is shown around them."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(map(escaped, value.splitlines()))


def _number(value: object) -> str:
    """A number as people read it; other things as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _size(num_bytes: int) -> str:
    """Bytes in the largest unit of which there is one."""
    size, units = float(num_bytes), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:,.3g} {units[0]}"
