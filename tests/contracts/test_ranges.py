import pytest

from fewlabels.contracts.ranges import parse_number_ranges


def test_numbers_and_ranges_are_read_in_order_and_each_once():
    assert parse_number_ranges("7") == [7]
    assert parse_number_ranges("0-4,9") == [0, 1, 2, 3, 4, 9]
    assert parse_number_ranges("9,0-2,1-3,9") == [9, 0, 1, 2, 3]
    assert len(parse_number_ranges("1-1000000")) == 1_000_000


@pytest.mark.parametrize("text", ["", "0..9", "1,", "-3", "1-2-3", "1, 2", "3\n"])
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match="expected numbers such as 0-9"):
        parse_number_ranges(text)


def test_a_range_that_ends_before_it_starts_is_refused():
    with pytest.raises(ValueError, match="write the smaller number of a range first"):
        parse_number_ranges("0-4,5-3")


@pytest.mark.parametrize("text", ["0-99999999999", "0-1000000", "0-600000,0-600000"])
def test_a_slip_of_the_keyboard_does_not_fill_the_memory(text):
    with pytest.raises(ValueError, match="expected at most 1,000,000 numbers"):
        parse_number_ranges(text)


def test_a_number_that_python_does_not_read_is_told_in_our_words():
    with pytest.raises(ValueError, match="expected numbers of at most 18 digits"):
        parse_number_ranges("0," + "1" * 5000)
