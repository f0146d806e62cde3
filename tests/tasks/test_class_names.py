"""Class names become distinct identifiers."""

from modalgate.tasks.class_names import class_identifiers


def test_identifiers_are_valid_and_distinct() -> None:
    for classes, identifiers in (
        (["fall", "no_fall"], ["fall", "no_fall"]),
        (["fall", "no fall"], ["fall", "no_fall"]),
        (["Stürzen", "wash-hands (left)"], ["Stürzen", "wash_hands_left"]),
        (["no fall", "no-fall", "no_fall"], ["no_fall_2", "no_fall_3", "no_fall"]),
        (["a!", "a", "a_2", "a?"], ["a_3", "a", "a_2", "a_4"]),
        (["+", "-", "class_0", "7"], ["class_0_2", "class_1", "class_0", "7"]),
        (["_", "x_"], ["class_0", "x"]),
    ):
        assert class_identifiers(classes) == identifiers
        assert len(set(identifiers)) == len(classes)
        assert all(f"recall_{name}".isidentifier() for name in identifiers)
