"""Which reconstruction belongs to which image: names without suffix, class folders kept or left away, and the refusals."""

from __future__ import annotations

import unicodedata

import pytest

from harness.data.pairs import pair_by_name, pair_in_order
from harness.data.sources import make_keys
from harness.errors import MsbenchError


def paired(references: list[str], names: list[str]) -> dict[str, str]:
    """Path of a reference -> its reconstruction."""
    keys = make_keys(references)
    found = pair_by_name({keys[name]: name for name in references}, names, "out")
    return {name: found[key] for name, key in keys.items() if key in found}


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("abc.JPEG", "abc.png"),
        ("n01/abc.JPEG", "n01/abc.png"),
        ("n01/abc.JPEG", "abc.png"),
        ("n01/abc.JPEG", "n01__abc.png"),
        ("val/n01/abc.JPEG", "n01/abc.png"),
        ("abc.JPEG", "n01/abc.png"),
        ("image.v1.jpg", "image.v1.png"),
        ("a b's (1).jpg", "a b's (1).png"),
        ("-rf.jpg", "-rf.png"),
        ("a..b.jpg", "a..b.png"),
        ("Größe/犬.jpg", "Größe/犬.png"),
        (unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.png")),
        ("caf\udce9.jpg", "caf\udce9.png"),
    ],
)
def test_names_match_without_their_suffix(reference: str, name: str) -> None:
    assert paired([reference, "other.jpg"], ["zzz.png", name]) == {reference: name}


def test_a_saved_image_matches_by_its_key() -> None:
    keys = make_keys(["a.png", "a.jpg"])
    assert paired(["a.png", "a.jpg"], [f"{key}.png" for key in keys.values()]) == {
        name: f"{key}.png" for name, key in keys.items()
    }


def test_other_class_folders_do_not_match() -> None:
    assert paired(["n01/abc.jpg"], ["n02/abc.png"]) == {}


def test_a_flat_name_that_two_classes_share_does_not_match() -> None:
    assert paired(["n01/abc.jpg", "n02/abc.jpg", "n02/d.jpg"], ["abc.png", "d.png"]) == {"n02/d.jpg": "d.png"}


def test_two_reconstructions_of_one_image_are_refused() -> None:
    with pytest.raises(MsbenchError, match=r"out: a.jpg and a.png are both called like image a"):
        paired(["a.jpg"], ["a.jpg", "a.png"])
    with pytest.raises(MsbenchError, match=r"n01/a.png and n02/a.png are both called like image a"):
        paired(["a.jpg"], ["n01/a.png", "n02/a.png"])


def test_one_reconstruction_of_two_images_is_refused() -> None:
    with pytest.raises(MsbenchError, match=r"out: a.png is called like both images a-\w{8} and a-\w{8}; rename one"):
        paired(["a.jpg", "a.webp"], ["a.png"])


def test_order_is_that_of_the_names() -> None:
    samples = {"n01__b": "n01/b.jpg", "n01-a": "n01-a.jpg"}
    assert pair_in_order(samples, ["y.png", "x.png"], "out") == {"n01-a": "x.png", "n01__b": "y.png"}
    with pytest.raises(MsbenchError, match="out: 1 reconstructions of 2 images cannot be matched by order"):
        pair_in_order(samples, ["x.png"], "out")
