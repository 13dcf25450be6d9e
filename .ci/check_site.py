"""python .ci/check_site.py SITE: no link inside the site is dead, and every public name of dsr is in its index."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sphinx.util.inventory import InventoryFile

MODULES = (
    "dsr",
    *(
        f"dsr.{name}"
        for name in ["data", "functional", "inspect", "metrics", "models", "nir", "ops", "testing", "train"]
    ),
)


class Page(HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note what the tag refers to, and its name."""
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def dead_links(site: Path) -> list[str]:
    """Links to files of the site, and to places in them, that do not exist."""
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment)
            if not target.exists() or (place and target in pages and place not in pages[target].anchors):
                dead.append(f"{path.relative_to(site.resolve())}: {link}")
    if len(pages) < 30:
        dead.append(f"the site has {len(pages)} pages only")
    return sorted(dead)


def foreign_files(site: Path) -> list[str]:
    """Scripts, styles and pictures that come from another site, without which a page is not whole offline."""
    found = []
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        found += [
            f"{path.relative_to(site)}: {mark}" for mark in ('src="http', 'rel="stylesheet" href="http') if mark in text
        ]
    return sorted(found)


def public_names(module: str) -> dict[str, set[str]]:
    """What a module says is public, or without that what is defined in it; and other names of the same thing."""
    found = import_module(module)
    own = [name for name, value in vars(found).items() if name[0] != "_" and getattr(value, "__module__", "") == module]
    names = {}
    for name in getattr(found, "__all__", own):
        value, where = getattr(found, name), []
        for other in map(import_module, MODULES):
            where += [f"{other.__name__}.{key}" for key in dir(other) if getattr(other, key, None) is value]
        names[f"{module}.{name}"] = {*where, f"{getattr(value, '__module__', module)}.{name}"}
    return names


def missing_names(site: Path) -> list[str]:
    """Public names that are on no page."""
    with open(site / "objects.inv", "rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    known = {*MODULES} | {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    public = {name: others for module in MODULES for name, others in public_names(module).items()}
    return sorted(name for name, others in public.items() if not (others | {name}) & known)


def main() -> None:
    """Print what is wrong; exit with 1 if anything is."""
    site = Path(sys.argv[1])
    found = {"dead link": dead_links(site), "from elsewhere": foreign_files(site), "on no page": missing_names(site)}
    for what, where in found.items():
        for line in where:
            print(f"{what}: {line}")
    if any(found.values()):
        raise SystemExit(1)
    print("no link is dead, nothing is loaded from elsewhere, and every public name is on a page")


if __name__ == "__main__":
    main()
