from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.labeling.naming import GroupName, fallback_name, plain_names, unique_names
from server.labeling.replies import MAX_LABEL_CHARS


def unique(labels: list[str], words: list[list[str]]) -> list[str]:
    return [n.label for n in unique_names([GroupName(label) for label in labels], words)]


def test_groups_without_a_model_have_numbers_and_their_words() -> None:
    assert plain_names(2, [["apple"]]) == [
        GroupName("Cluster 0", None, ("apple",)),
        GroupName("Cluster 1"),
    ]


def test_a_fallback_is_made_of_words_else_of_the_position() -> None:
    words = [["a1", "b1", "c1", "d1"], [], ["x" * 79, "y"], ["bad\x00", "good"]]

    assert fallback_name(0, words, True) == GroupName("a1, b1, c1", None, ("a1", "b1", "c1", "d1"))
    assert fallback_name(0, words, False) == GroupName("a1, b1, c1")
    assert fallback_name(1, words, True) == GroupName("Cluster 1")
    assert fallback_name(2, words, True).label == "Cluster 2"
    assert fallback_name(3, words, True).label == "good"
    assert fallback_name(9, words, True) == GroupName("Cluster 9")


def test_equal_labels_are_told_apart_by_words_then_by_numbers() -> None:
    assert unique(["A", "B", "a"], [["x"], ["y"], ["z"]]) == ["A (x)", "B", "a (z)"]
    assert unique(["A", "A"], [["x"], ["x"]]) == ["A", "A 2"]
    assert unique(["A", "A 2", "A"], []) == ["A", "A 2", "A 3"]
    assert unique(["A", "A (x)", "A"], [["x"], [], ["y"]]) == ["A", "A (x)", "A (y)"]
    assert unique(["Big Data", "big data"], [["data"], ["big"]]) == ["Big Data", "big data 2"]


def test_no_group_is_called_noise() -> None:
    assert unique(["Noise"], []) == ["Noise 2"]
    assert unique(["noise", "A"], [["hiss"], []]) == ["noise (hiss)", "A"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["A", "a", "A (x)", "A 2", "Noise", "ß", "SS", "L" * MAX_LABEL_CHARS]),
            st.lists(st.sampled_from(["x", "y", "X"]), max_size=2),
        ),
        max_size=12,
    )
)
def test_labels_are_always_unique_and_short(groups: list[tuple[str, list[str]]]) -> None:
    labels = unique([label for label, _ in groups], [words for _, words in groups])

    assert len({label.casefold() for label in labels}) == len(groups)
    assert all(len(label) <= MAX_LABEL_CHARS for label in labels)
    assert "noise" not in {label.casefold() for label in labels}
