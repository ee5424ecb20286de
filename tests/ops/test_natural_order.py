from fewlabels.ops.natural_order import sort_naturally


def test_numbers_in_names_stand_as_people_count():
    assert sort_naturally(str(n) for n in range(12)) == [str(n) for n in range(12)]
    assert sort_naturally({"b2", "a10", "a9", "a", "7", "B"}) == ["7", "B", "a", "a9", "a10", "b2"]
    assert sort_naturally(["1.5", "10.5", "1.25"]) == ["1.5", "1.25", "10.5"]


def test_names_of_one_value_have_one_order():
    assert sort_naturally(["01", "1", "001"]) == sort_naturally(["1", "001", "01"])


def test_a_name_of_more_digits_than_python_reads_is_sorted_too():
    assert sort_naturally(["9" * 9_000, "2", "³"])[0] == "2"
