"""`lab new-lesson`: a lesson in the one shape, which fails until it is written."""

from .places import LANGUAGES, NOTE

SECTIONS = ["The concept", "The example", "Predict", "Break it", "The error explained", "Check yourself"]
STUBS = {
    "python": 'raise NotImplementedError("write me")',
    "rust": 'panic!("write me");',
    "go": '%%\npanic("write me")',
    "elixir": 'raise "write me"',
}


def new_lesson(path):
    folder = (NOTE / path).resolve()
    if NOTE not in folder.parents:
        print(f"lab: {path} is not below note/")
        return 1
    source = folder / "lesson.myst"
    if source.exists():
        print(f"lab: {source} exists already")
        return 1
    cells = "".join(f"```{{code-cell}} {language}\n{STUBS[language]}\n```\n" for language in LANGUAGES)
    title = folder.name.lstrip("0123456789-").replace("-", " ").capitalize()
    folder.mkdir(parents=True, exist_ok=True)
    source.write_text(f"# {title}\n\n" + "\n".join(f"## {section}\n\n{cells}" for section in SECTIONS))
    print(f"lab: write {source}, then run `jupyter/lab write --lesson {path}`")
    return 0
