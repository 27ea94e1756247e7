"""A small valid delivery of every format, cut from the real recordings or written here.

The first recording of each lasts a minute, so that it has a window; the others are short, so that a case is quick.
"""

from __future__ import annotations

import io
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
from scipy.io import loadmat, savemat

from accelkd.home.isolated import run_in_kept_process
from tests.support import binary_formats as formats
from tests.support.edf import Edf, Signal
from tests.support.mutations import Binary, Layout, Seed, Text, Tree, json_tree
from tests.support.recordings import pulse
from tests.support.tables import signals, write_csv

SECONDS, SHORT = 62, 6
Floats = npt.NDArray[np.float64]
_TABLE = """
[time]
column = "timestamp"
unit = "ms"
epoch = "unix"

[ppg]
columns = ["green"]
unit = "counts"
polarity = -1

[accel]
columns = ["ax", "ay", "az"]
unit = "g"
"""


def seeds(data: Path) -> dict[str, Seed]:
    """All seeds by name; `data` is the folder of the real recordings that docs/devices.md names."""
    return {
        "e4": _e4(data),
        "e4 in ZIPs": _e4_zip(data),
        "polar": _polar(data),
        "bami": _mat("bami", {"P1/Subject_2.mat": _cut_mat(data / "bami1-watch/Subject_2.mat", 50)}, ("timeECG",)),
        "troika": _troika(data),
        "wrist-edf": _wrist_edf(data),
        "edf": _edf(),
        "wfdb": _wfdb(),
        "embraceplus": _embraceplus(data),
        "verily": _verily(data),
        "axivity AX3": _axivity(formats.cwa(formats.wrist(100 * SECONDS, 256))),
        "axivity AX6": _axivity((data / "accelerometer-formats/ax6_testfile.cwa").read_bytes()[: 1024 + 512 * 160]),
        "geneactiv": _geneactiv(),
        "actigraph": _actigraph(),
        "matrix": _matrix(),
        "nilspod": _nilspod(data),
        "phone: MSCardio": _mscardio(data),
        "phone: Sensor Logger": _sensor_logger(),
        **_tables(),
    }


def _e4_files(data: Path, person: str, folder: str, seconds: int) -> Iterator[tuple[str, bytes]]:
    rates_hz = {"ACC.csv": 32, "BVP.csv": 64, "HR.csv": 1}
    for name in (*rates_hz, "IBI.csv", f"tags_{person}.csv"):
        lines = (data / f"stress-predict-e4/{person}/{name}").read_bytes().splitlines(keepends=True)
        kept = lines[: 2 + seconds * rates_hz[name]] if name in rates_hz else lines[:40]
        yield f"{folder}/{name}", b"".join(kept)


_E4_LAYOUTS: dict[str, Layout] = {
    "ACC*": Text(",", 2, time_headers=(0, 1)),
    "BVP*": Text(",", 2, time_headers=(0, 1)),
    "HR*": Text(",", 2, time_headers=(0, 1)),
    "IBI*": Text(",", 1, (0, 1), (0,)),
    "tags*": Text(",", 0, (0,)),
}


def _e4(data: Path) -> Seed:
    files = dict(_e4_files(data, "S10", "S10", SECONDS)) | dict(_e4_files(data, "S24", "S24", SHORT))
    return Seed("e4", files, _E4_LAYOUTS)


def _e4_zip(data: Path) -> Seed:
    files = {}
    for person, name, seconds in (("S10", "P1", SECONDS), ("S24", "P2", SHORT)):
        members = {path.partition("/")[2]: content for path, content in _e4_files(data, person, name, seconds)}
        members["tags.csv"] = members.pop(f"tags_{person}.csv")
        files[f"{name}/1644226061_A001BC.zip"] = _zip(members)
    return Seed("e4", files, {"*": Tree(_unzip, _zip)})


def _unzip(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(members: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, member in members.items():
            archive.writestr(name, member if isinstance(member, bytes) else str(member).encode("utf-8", "replace"))
    return out.getvalue()


def _polar(data: Path) -> Seed:
    rows = {"ACC": 52 * SECONDS, "PPG": 55 * SECONDS, "HR": 90, "PPI": 60}
    files = {
        f"P1/Polar_Sense_{name}.txt": b"".join(
            (data / f"polar-verity-sense/Polar_Sense_{name}.txt").read_bytes().splitlines(keepends=True)[: 1 + count]
        )
        for name, count in rows.items()
    }
    files["P1/MARKER.txt"] = (data / "polar-verity-sense/MARKER.txt").read_bytes()
    return Seed("polar", files, {"*ACC*": Text(";", 1, (0, 1)), "*PPG*": Text(";", 1, (0, 1)), "*": Text(";", 1, (0,))})


def _load_mat(content: bytes) -> dict[str, Any]:
    """Variables of a file, which other mutations may have damaged so that it kills its reader."""
    tree = run_in_kept_process(_parsed_mat, content)
    return {key: value for key, value in tree.items() if not key.startswith("__")}


def _parsed_mat(content: bytes) -> dict[str, Any]:
    tree: dict[str, Any] = loadmat(io.BytesIO(content))
    return tree


def _dump_mat(tree: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    savemat(out, tree)
    return out.getvalue()


def _cut_mat(path: Path, rate_hz: int) -> bytes:
    content = _load_mat(path.read_bytes())
    return _dump_mat(
        {
            name: value[:, : SECONDS * rate_hz] if value.shape[1] > 9 else value[:60] if len(value) > 999 else value
            for name, value in content.items()
        }
    )


def _mat(device: str, files: dict[str, bytes], times: tuple[str, ...]) -> Seed:
    return Seed(device, files, {"*": Tree(_load_mat, _dump_mat, tuple((name,) for name in times))})


def _troika(data: Path) -> Seed:
    name = "DATA_05_TYPE02"
    trace = _load_mat((data / f"troika-spc2015/{name}_BPMtrace.mat").read_bytes())["BPM0"]
    return _mat(
        "troika",
        {
            f"P1/{name}.mat": _cut_mat(data / f"troika-spc2015/{name}.mat", 125),
            f"P1/{name}_BPMtrace.mat": _dump_mat({"BPM0": trace[: (SECONDS - 8) // 2 + 1]}),
        },
        ("BPM0",),
    )


def _edf_fields(signals: int, records: bytes) -> tuple[tuple[int, int], ...]:
    """Where each field of an EDF header begins, and its width."""
    widths = [8, 80, 80, 8, 8, 8, 44, 8, 8, 4]
    for width in (16, 80, 8, 8, 8, 8, 8, 80, 8, 32):
        widths += [width] * signals
    fields, at = [], 0
    for width in widths:
        fields.append((at, width))
        at += width
    return tuple(field for field in fields if field[0] < len(records))


def _wrist_edf(data: Path) -> Seed:
    content = (data / "wrist-ppg-exercise/s6_walk.edf").read_bytes()
    beats = (data / "wrist-ppg-exercise/s6_walk.atr.txt").read_bytes().splitlines(keepends=True)[:120]
    header, record = 256 * 16, 15 * 256 * 2
    cut = bytearray(content[: header + record * SECONDS])
    cut[236:244] = str(SECONDS).encode().ljust(8)
    layouts: dict[str, Layout] = {
        "*.edf": Binary(header, fields=_edf_fields(15, bytes(cut))),
        "*.txt": Text(" ", 1, (4,)),
    }
    return Seed("wrist-edf", {"s6_walk.edf": bytes(cut), "s6_walk.atr.txt": b"".join(beats)}, layouts)


def _pulse(rate_hz: int) -> Floats:
    wave = pulse(SECONDS, 70, 1, level=1000)[0].astype(np.float64) - 1000
    return np.interp(np.arange(SECONDS * rate_hz) / rate_hz, np.arange(len(wave)) / 64, wave)


def _axes(rate_hz: int) -> list[Floats]:
    rng = np.random.default_rng(0)
    return [level + 0.01 * rng.standard_normal(SECONDS * rate_hz) for level in (0.6, 0.0, 0.8)]


def _ecg(rate_hz: int) -> Floats:
    phase = np.arange(SECONDS * rate_hz) / rate_hz % 0.83
    return np.asarray(np.exp(-0.5 * ((phase - 0.4) / 0.012) ** 2))


def _edf() -> Seed:
    rows = [
        Signal("PPG green", "mV", 64, _pulse(64)),
        *(Signal(f"ACC {axis}", "g", 32, axes, (-4, 4)) for axis, axes in zip("XYZ", _axes(32), strict=True)),
        Signal("ECG", "mV", 128, _ecg(128), (-2, 2)),
    ]
    short = [replace(row, samples=row.samples[::-1][: SHORT * row.rate_hz]) for row in rows[:4]]
    onsets_s = [float(second + 20 * (second > 3)) for second in range(SHORT)]
    files = {"P1.edf": _written(Edf(rows).write), "P2.edf": _written(Edf(short, onsets_s=onsets_s).write)}
    other = [replace(row, samples=row.samples[-SHORT * row.rate_hz :]) for row in rows[:4]]
    files["P3.bdf"] = _written(Edf(other, is_bdf=True).write)
    layouts: dict[str, Layout] = {
        "P1*": Binary(256 * 6, fields=_edf_fields(5, files["P1.edf"])),
        "P2*": Binary(256 * 6, fields=_edf_fields(5, files["P2.edf"])),
        "*.bdf": Binary(256 * 5, fields=_edf_fields(4, files["P3.bdf"])),
    }
    return Seed("edf", files, layouts)


def _written(write: Callable[[Path], object]) -> bytes:
    """What a function writes into a file."""
    with TemporaryDirectory() as folder:
        write(Path(folder, "x"))
        return Path(folder, "x").read_bytes()


def _wfdb() -> Seed:
    import wfdb

    samples = np.stack([_ecg(128), _pulse(128), *_axes(128)], axis=1)
    names, units = ["II", "PLETH", "ACC_X", "ACC_Y", "ACC_Z"], ["mV", "mV", "g", "g", "g"]
    beats = np.round(np.arange(0.4, SECONDS - 1, 0.83) * 128).astype(int)
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        comments = ["Age: 61  Sex: M"]
        wfdb.wrsamp("P1", 128, units, names, p_signal=samples, fmt=["16"] * 5, write_dir=folder, comments=comments)
        short = samples[: 128 * SHORT, 1:] + 0.05
        wfdb.wrsamp("P2", 128, units[1:], names[1:], p_signal=short, fmt=["16"] * 4, write_dir=folder)
        wfdb.wrann("P1", "atr", beats, symbol=["N"] * len(beats), write_dir=folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    return Seed("wfdb", files, {"*.hea": Text(" ", 1, (), (0,)), "*": Binary(64)})


def _embraceplus(data: Path) -> Seed:
    import fastavro

    with (data / "empatica-embraceplus/test_data.avro").open("rb") as file:
        record = next(iter(fastavro.reader(file)))
    assert isinstance(record, dict)

    def cut(level: dict[str, Any]) -> None:
        for name, value in level.items():
            if isinstance(value, dict):
                cut(value)
            elif isinstance(value, list):
                level[name] = value[: SECONDS * 64] if len(value) > 9999 else value[:60]

    cut(record)

    def load(content: bytes) -> dict[str, Any]:
        loaded = next(iter(fastavro.reader(io.BytesIO(content))))
        assert isinstance(loaded, dict)
        return loaded

    clocks = ("timestampStart", "samplingFrequency")
    times = (
        *(("rawData", stream, name) for stream in ("accelerometer", "bvp") for name in clocks),
        ("rawData", "systolicPeaks", "peaksTimeNanos"),
    )

    def dump(tree: dict[str, Any]) -> bytes:
        return _written(lambda path: formats.write_avro(path, tree))

    name = "P1/1-1-000001_1764153713.avro"
    return Seed("embraceplus", {name: dump(record)}, {"*": Tree(load, dump, times)})


def _verily(data: Path) -> Seed:
    files: dict[str, bytes] = {}
    for stream, widths in (
        ("imu", {"quality": 1, "time": 4, "values": 12}),
        ("ppg", {"quality": 1, "time": 4, "values": 4}),
    ):
        folder = data / f"verily-study-watch/{stream}"
        meta = (folder / f"{stream}_meta.json").read_text(encoding="utf-8")
        rows = json.loads(meta)["rows"]
        kept = SECONDS * 100
        files[f"P1/{stream}/{stream}_meta.json"] = meta.replace(str(rows), str(kept)).encode()
        for name, width in widths.items():
            files[f"P1/{stream}/{stream}_{name}.bin"] = (folder / f"{stream}_{name}.bin").read_bytes()[: kept * width]
    layouts: dict[str, Layout] = {
        "*_meta.json": json_tree(("start_iso8601",), ("end_iso8601",), ("rows",)),
        "*_time.bin": Binary(16, stride=4, kind="<f4"),
        "*": Binary(16),
    }
    return Seed("verily", files, layouts)


def _axivity(content: bytes) -> Seed:
    def summed(changed: bytes) -> bytes:
        """With the sums of all sectors as they should be."""
        sectors = bytearray(changed)
        for at in range(1024, len(sectors) - 511, 512):
            total = int(np.frombuffer(bytes(sectors[at : at + 510]), "<u2").sum(dtype=np.uint16))
            sectors[at + 510 : at + 512] = struct.pack("<H", -total & 0xFFFF)
        return bytes(sectors)

    return Seed("axivity", {"P1/walk.cwa": content}, {"*": Binary(1024 + 30, 1024 + 14, 512, mend=summed)})


def _geneactiv() -> Seed:
    content = formats.geneactiv(formats.wrist(50 * SECONDS, 256))
    return Seed(
        "geneactiv",
        {"P1.bin": content, "P2.bin": formats.geneactiv(formats.wrist(50 * SHORT, 256, 1))},
        {"*": Text(":", 2, (1, 2, 3))},
    )


def _actigraph() -> Seed:
    counts = formats.wrist(30 * SECONDS, 256)
    files = {"P1.gt3x": formats.gt3x(counts), "P2.gt3x": formats.gt3x(formats.wrist(30 * SHORT, 256, 1), kind=0)}
    size = 9 + 30 * 6

    def load(content: bytes) -> dict[str, Any]:
        members = _unzip(content)
        info = members.pop("info.txt").decode("utf-8", "replace")
        log = np.frombuffer(members["log.bin"], np.uint8)
        rows = log[: len(log) // size * size].reshape(-1, size)
        times = np.ascontiguousarray(rows[:, 2:6]).view("<u4")[:, 0].astype(np.float64)
        pairs = (line.partition(": ") for line in info.splitlines())
        return {"info": {name: value for name, _, value in pairs}, "times": times, "records": rows.astype(np.float64)}

    def dump(tree: dict[str, Any]) -> bytes:
        records = np.asarray(tree["records"], np.float64).astype(np.uint8)
        if "times" in tree and records.ndim == 2:
            times = np.nan_to_num(np.asarray(tree["times"], np.float64)).clip(0, 2**32 - 1).astype("<u4")
            records[: len(times), 2:6] = np.resize(times, len(records)).view(np.uint8).reshape(-1, 4)
            records[:, -1] = np.bitwise_xor.reduce(records[:, :-1], axis=1) ^ 0xFF
        info = "".join(f"{name}: {value}\r\n" for name, value in tree.get("info", {}).items())
        return _zip({"info.txt": info, "log.bin": records.tobytes()})

    return Seed("actigraph", files, {"P1*": Tree(load, dump, (("times",),)), "*": Binary(64)})


def _matrix() -> Seed:
    counts = formats.wrist(100 * SECONDS, 4096)
    packets = [
        formats.matrix_packet(
            counts[at : at + 500], formats.START_S + at // 100, formats.START_S + at // 100 + 5, (70,)
        )
        for at in range(0, len(counts), 500)
    ]
    size = len(packets[0])

    def summed(content: bytes) -> bytes:
        """With the sums of all packets as they should be."""
        changed = bytearray(content)
        for at in range(first, len(changed) - size + 1, size):
            changed[at + 8 : at + 12] = struct.pack("<I", zlib.crc32(bytes(changed[at + 12 : at + size])))
        return bytes(changed)

    content = formats.matrix([*packets])
    first = content.index(b"MDTCPACK")
    files = {
        "P1.BIN": content,
        "P2.bin": formats.matrix(
            [formats.matrix_packet(formats.wrist(500, 4096, 1), formats.START_S, formats.START_S + 5)]
        ),
    }
    layouts: dict[str, Layout] = {
        "P1*": Binary(first + 40, first + 12, size, mend=summed),
        "*": Binary(first + 40, first + 16, size, mend=summed),
    }
    return Seed("matrix", files, layouts)


def _nilspod(data: Path) -> Seed:
    content = (data / "biopsykit-nilspod-chest/ecg_sample_Vp01.bin").read_bytes()
    header, size = content[0], content[1]
    cut = content[: header + size * 257 * SECONDS]
    return Seed("nilspod", {"P1/ecg.bin": cut}, {"*": Binary(header, header + size - 4, size)})


def _mscardio(data: Path) -> Seed:
    files: dict[str, bytes] = {}
    for person, seconds in (("Subject_0063", SECONDS), ("Subject_0054", SHORT)):
        folder = data / "mscardio-phone-scg/MSCardio" / person
        rows = lzma.decompress((folder / "Recording_001/uncalibrated_scg.csv.xz").read_bytes()).splitlines(
            keepends=True
        )
        kept = lzma.compress(b"".join(rows[: 1 + 100 * seconds]), preset=0)
        files[f"{person}/Recording_001/uncalibrated_scg.csv.xz"] = kept
        for name in ("general_metadata.json", "Recording_001/recording_metadata.json"):
            files[f"{person}/{name}"] = (folder / name).read_bytes()
    layouts: dict[str, Layout] = {"*.xz": Text(",", 1, (0, 1), packed=True), "*.json": json_tree()}
    return Seed("phone", files, layouts)


def _sensor_logger() -> Seed:
    axes = np.stack(_axes(50), axis=1) * 9.80665
    start_ns = 1_728_120_522_020_157_200
    names = ("TotalAcceleration", "Accelerometer", "Gravity")
    files: dict[str, bytes] = {}
    for person, seconds in (("P1", SECONDS), ("P2", SHORT)):
        for name in names:
            level = (axes * 0.01 if name == "Accelerometer" else axes + (person == "P2") / 9)[: 50 * seconds]
            lines = ["time,seconds_elapsed,z,y,x"]
            for n, (x, y, z) in enumerate(level.tolist()):
                lines.append(f"{start_ns + n * 20_000_000},{n / 50:.6f},{z:.6f},{y:.6f},{x:.6f}")
            if person == "P1" or name == "TotalAcceleration":
                files[f"{person}/2024-10-05_09-28-42/{name}.csv"] = "\n".join([*lines, ""]).encode()
    files["P1/2024-10-05_09-28-42/Metadata.csv"] = b"version,device name\n3,phone\n"
    return Seed("phone", files, {"Metadata*": Text(",", 1), "*.csv": Text(",", 1, (0, 1))})


def _tables() -> dict[str, Seed]:
    people = {"P1": signals(SECONDS), "P2": signals(SHORT, 1)}

    def arrow(name: str) -> Tree:
        def load(content: bytes) -> dict[str, Any]:
            source = pa.BufferReader(content)
            table = pq.read_table(source) if name == "parquet" else pyarrow.feather.read_table(source)
            return {column: table[column].to_numpy() for column in table.column_names}

        def dump(tree: dict[str, Any]) -> bytes:
            table = pa.table({column: pa.array(values) for column, values in tree.items()})
            out = io.BytesIO()
            if name == "parquet":
                pq.write_table(table, out)
            else:
                pyarrow.feather.write_feather(table, out, compression="uncompressed")
            return out.getvalue()

        return Tree(load, dump, (("timestamp",),))

    mat = Tree(_load_mat, _dump_mat, (("timestamp",),))
    kinds: dict[str, Tree] = {"parquet": arrow("parquet"), "feather": arrow("feather"), "mat": mat}
    csv = {f"{name}.csv": _written(partial(write_csv, columns=columns)) for name, columns in people.items()}
    made = {"table: csv": Seed("table", csv, {"*": Text(",", 1, (0,))}, _TABLE)}
    for kind, tree in kinds.items():
        files = {f"{name}.{kind}": tree.dump(dict(columns)) for name, columns in people.items()}
        made[f"table: {kind}"] = Seed("table", files, {"*": tree}, _TABLE)
    return made
