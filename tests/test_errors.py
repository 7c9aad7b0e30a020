import pytest

from lecturelib import errors
from lecturelib.errors import LectureError, nearest

FAMILY = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LectureError)]


@pytest.mark.parametrize("kind", FAMILY)
def test_a_message_says_what_was_wrong_what_was_received_and_what_to_do(kind):
    error = kind("the picture is too small", received="3 x 3 pixels", do="use a larger one")
    assert str(error) == "The picture is too small.\nReceived: 3 x 3 pixels.\nUse a larger one."
    assert isinstance(error, ValueError) and isinstance(error, LectureError)


def test_parts_that_are_not_known_are_left_out():
    assert str(LectureError("no picture", do="fc7 is a dense layer")) == "No picture.\nfc7 is a dense layer."
    assert str(LectureError("a channel", received=0)) == "A channel.\nReceived: 0."


def test_nearest_ignores_case_keeps_the_spelling_and_gives_the_best_first():
    names = ["Siamese cat", "tiger cat", "Egyptian cat", "go-kart"]
    assert nearest("SIAMESE CAT", names)[0] == "Siamese cat"
    assert nearest("gokart", names)[0] == "go-kart"
    assert len(nearest("zzz", names)) == 3 and nearest("cat", []) == []
    assert nearest("crane", ["crane", "Crane"]) == ["crane"]
