"""Where a picture comes from: a packaged name, a path, a web address, an upload become the bytes of a file."""

from itertools import islice
from pathlib import Path

from lecturelib import assets, downloads
from lecturelib.errors import ImageInputError, nearest

LARGEST_FILE = 200_000_000  # bytes
_BEGINNINGS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
    b"%PDF": "PDF",
    b"PK\x03\x04": "zip",
    b"\x1f\x8b": "gzip",
    b"8BPS": "Photoshop",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
}


def packaged_names() -> list[str]:
    """The short names that `load_image` knows: photographs of the dependencies and style pictures of the course."""
    return [*assets.PHOTOGRAPHS, *_style_names()]


def read_source(source: object) -> tuple[bytes, str]:
    """The bytes of a picture file and what to call it in a message."""
    if isinstance(source, bytes | bytearray | memoryview):
        return bytes(source), "the data"
    if isinstance(source, str) and ("://" in source or source.lower().startswith("data:")):
        return downloads.fetch(source.strip()), f"the file at {_short(source)}"
    if isinstance(source, str | Path):
        return _read_file(source), f"the file {_short(Path(source).name)}"
    value = getattr(source, "value", source)  # a FileUpload widget, without importing ipywidgets
    if isinstance(value, dict | tuple):
        return _uploaded(value)
    raise ImageInputError(
        "a picture is a name, a path, an http(s) address, bytes, an upload, a PIL image, an array or a tensor",
        received=type(source).__name__,
        do="turn a list of numbers into np.array(numbers)" if isinstance(source, list) else "try load_image('cat')",
    )


def kind_of(data: bytes) -> str:
    """What kind of file begins like this: "JPEG", "HEIC", "HTML page", ..."""
    if not data:
        return "empty file"
    for beginning, kind in _BEGINNINGS.items():
        if data.startswith(beginning):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = data[8:64]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        return "HEIC" if brands[:3] in (b"hei", b"hev", b"mif", b"msf") else "video"
    return _kind_of_text(data[:2000])


def _kind_of_text(beginning: bytes) -> str:
    text = beginning.decode("utf-8", errors="replace").lower()
    if "<!doctype html" in text or "<html" in text:
        return "HTML page"
    if "<svg" in text:
        return "SVG"
    odd = sum(letter == "\ufffd" or not (letter.isprintable() or letter.isspace()) for letter in text)
    return "text" if odd <= 0.05 * len(text) else "unknown kind"


def _read_file(source: str | Path) -> bytes:
    try:
        path = _path(source)
        if path.stat().st_size > LARGEST_FILE:
            raise ImageInputError(
                "the file is too large for a picture",
                received=f"{_short(source)}, {path.stat().st_size / 1e6:.0f} MB",
                do="export it smaller as JPEG",
            )
        return path.read_bytes()
    except (OSError, RuntimeError) as error:  # expanduser raises RuntimeError for ~nobody
        reason = getattr(error, "strerror", None) or error
        raise ImageInputError(
            "the file cannot be read", received=f"{_short(source)} ({reason})", do="choose another file"
        ) from None


def _path(source: str | Path) -> Path:
    if isinstance(source, str):
        if source in assets.PHOTOGRAPHS:
            return assets.photograph_file(source)
        if source in _style_names():
            return assets.data_file(f"styles/{source}.png")
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if isinstance(source, str) and source.replace("_", "").replace(" ", "").isalnum() and not path.is_dir():
        raise ImageInputError(
            "there is no packaged picture and no file of this name",
            received=repr(_short(source)),
            do="near it: " + ", ".join(nearest(source, packaged_names())),
        )
    raise _no_file(source, path)


def _no_file(source: str | Path, path: Path) -> ImageInputError:
    folder = path if path.is_dir() else Path(str(path).replace("\\", "/")).parent
    if not folder.is_dir():
        return ImageInputError(
            "there is no such folder",
            received=_short(source),
            do="check the spelling; a name such as 'cat' always works",
        )
    files = [entry.name for entry in islice(folder.iterdir(), 3000) if entry.is_file()]
    near = ", ".join(nearest(path.name, files))
    return ImageInputError(
        "this is a folder, not a picture" if path.is_dir() else "there is no such file",
        received=_short(source) or "an empty name",
        do=f"files in that folder: {near}" if near else "that folder has no files; a name such as 'cat' always works",
    )


def _style_names() -> list[str]:
    return sorted(path.stem for path in (assets.data_folder() / "styles").glob("*.png"))


def _uploaded(value: dict | tuple) -> tuple[bytes, str]:
    """The one file of a FileUpload's value: a tuple of dicts (ipywidgets 8) or a dict by file name (7)."""
    if isinstance(value, dict):
        value = (value,) if "content" in value else tuple(value.values())
    if len(value) != 1:
        raise ImageInputError(
            "choose one file", received=f"{len(value)} files", do="use the button to choose a picture"
        )
    try:
        content = bytes(value[0]["content"])
        name = _short(value[0].get("name") or value[0]["metadata"]["name"])
    except (KeyError, TypeError, AttributeError):
        raise ImageInputError(
            "this is not the value of an upload", received=type(value[0]).__name__, do="give the widget itself"
        ) from None
    if not content:
        raise ImageInputError(
            "the upload arrived empty",
            received=name,
            do="files above about 10 MB do not arrive: make it smaller, or give its path",
        )
    return content, f"the file {name}"


def _short(name: str | Path) -> str:
    text = str(name)
    return text if len(text) <= 80 else text[:77] + "..."
