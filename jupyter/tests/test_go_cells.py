"""The splitter and the program, without a compiler."""

import pytest
from cells import chunks, command_lines, split
from hypothesis import given
from hypothesis import strategies as st
from program import CellError, Program


def names(code):
    return [(chunk.kind, chunk.names) for chunk in chunks(code)]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("func f() {}", [("func", ["f"])]),
        ("func f[T any](x T) T { return x }", [("func", ["f"])]),
        ("func (b *Block) Hash() string { return `}` }", [("func", ["Block.Hash"])]),
        ("func (v Vec[T]) Len() int { return 1 }", [("func", ["Vec.Len"])]),
        ("func (Block) Zero() {}", [("func", ["Block.Zero"])]),
        ("type A struct {\n\tx, y int\n}\ntype B = A", [("type", ["A"]), ("type", ["B"])]),
        ("var a, b = 1, 2; const c = 3", [("var", ["a", "b"]), ("const", ["c"])]),
        ("const (\n\tX = iota\n\tY\n\tZ\n)", [("const", ["X", "Y", "Z"])]),
        ('import (\n\t"fmt"\n)\n\n// c\nvar x = "{" // }', [("import", []), ("var", ["x"])]),
        ("x := 1", [("statement", [])]),
        ("func() {}()", [("statement", [])]),
        ("var f = func() int {\n\treturn 1\n}", [("var", ["f"])]),
    ],
)
def test_chunks(code, expected):
    assert names(code) == expected


def test_a_comment_belongs_to_what_follows():
    (chunk,) = chunks("\n// Says so.\nfunc f() {}")
    assert chunk.text.startswith("// Says so.") and chunk.line == 1


def test_split_keeps_line_numbers():
    cell = split("%goflags -race\nvar a = 1\n%% one two\nprintln(a)\n%d")
    assert (cell.commands, cell.arguments, cell.body_line) == (["%goflags -race", "%d"], ["one", "two"], 3)
    assert cell.chunks[0].line == 1 and cell.body == "println(a)\n"


def test_a_line_within_a_raw_string_or_a_comment_is_no_command():
    code = "!echo `date` it's\nvar text = `\n%d\n!x\n%% y`\n/*\n!z\n*/\n%%\nfmt.Printf(`\n%s`)\n%goflags \"`\n!last"
    cell = split(code)
    assert cell.commands == ["!echo `date` it's", '%goflags "`', "!last"]
    assert [chunk.text for chunk in cell.chunks] == ["var text = `\n%d\n!x\n%% y`"]
    assert (cell.body, cell.body_line) == ("fmt.Printf(`\n%s`)\n\n", 9)


def test_reset_forgets_what_was_before_the_cell_and_keeps_what_it_declares():
    first, _, _ = Program().with_cell('import r "math/rand/v2"\nvar a, b = 1, 2', "cell[1]")
    second, _, _ = first.with_cell("%reset\nvar b = 3", "cell[2]")
    assert (list(second.declarations), second.imports) == ([("b",)], {})


def test_a_redefinition_replaces_and_a_failed_cell_changes_nothing():
    first, _, _ = Program().with_cell("func f() int { return 1 }", "cell[1]")
    second, cell, main = first.with_cell("func f() int { return 2 }\n%%\nfmt.Println(f())", "cell[2]")
    source = second.source(cell, main, "cell[2]")
    assert "return 2" in source and "return 1" not in source and '"fmt"' in source and "//line cell[2]:3" in source
    assert "return 1" in first.declarations["f",][0].text


def test_a_redefinition_of_one_name_of_a_group_drops_the_group():
    first, _, _ = Program().with_cell("var a, b = 1, 2", "cell[1]")
    second, _, _ = first.with_cell("var b = 3", "cell[2]")
    assert list(second.declarations) == [("b",)]


def test_only_used_imports_are_written():
    program, cell, main = Program().with_cell('import (\n"os"\nr "math/rand/v2"\n)\n%%\nr.Int()\nx.fmt.y()', "cell[1]")
    source = program.source(cell, main, "cell[1]")
    assert 'r "math/rand/v2"' in source and '"os"' not in source and '"fmt"' not in source


def test_a_loose_statement_is_refused_with_its_line():
    with pytest.raises(CellError, match=r"cell\[3\]:2: .*%%"):
        Program().with_cell("var a = 1\nprintln(a)", "cell[3]")


@given(st.text(alphabet="func(){}[];\n\t \"`'/*abc=:,.%!typevar1", max_size=200))
def test_no_text_breaks_the_splitter(text):
    lines, commands = text.split("\n"), command_lines(text)
    assert all(lines[number][0] in "%!" for number in commands)
    for number in commands:
        lines[number] = ""
    for chunk in split(text).chunks:
        # Every piece stands in the cell, and begins at its line.
        at = "\n".join(lines[chunk.line :]).find(chunk.text)
        assert 0 <= at <= len(lines[chunk.line])
