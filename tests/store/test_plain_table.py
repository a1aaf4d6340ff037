"""Tables of reports fit a terminal of 80 columns."""

from stx_mine.store.stage_report import plain_table


def test_a_long_first_column_loses_its_beginning() -> None:
    path = "/home/somebody/projects/a-long-name-of-a-project/stx-run/rounds/2/model"
    rows = [["model", "ndcg@10 [95%]", "mrr@10"], [path, "0.3987 [0.3840, 0.4132]", "0.3485"]]
    lines = plain_table([*rows, ["base", "0.2", "0.1"]])
    assert {len(line) for line in lines} == {78}
    assert lines[1].startswith("…")
    assert lines[1].split("  ")[0].endswith("stx-run/rounds/2/model")
    assert lines[2].startswith("base ")


def test_what_fits_is_left_as_it_is() -> None:
    assert plain_table([["a", "1"], ["bcd", "22"]]) == ["a     1", "bcd  22"]


def test_many_columns_leave_some_of_the_first() -> None:
    lines = plain_table([["a" * 40, *["0.1234 [0.1, 0.2]"] * 6]])
    assert lines[0].startswith("…" + "a" * 13 + "  0.1234")
