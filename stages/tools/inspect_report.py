"""What `inspect` found, as text."""

from typing import Any

from stages.tools.inspect_values import Table, aligned, provenance_lines, shape_text


def report(facts: dict[str, Any]) -> str:
    """The report on the facts of a cache, of shards or of a safetensors file."""
    return (_tensors if "tensors" in facts else _shards if "shards" in facts else _cache)(facts)


def _cache(facts: dict[str, Any]) -> str:
    head = [f"{facts['path']}: {facts['rows']} rows, {facts['rejects']} rejects, {facts['bytes'] / 1e6:.1f} MB"]
    if facts["volumes"]:
        head[0] += f" in {facts['volumes']} volumes"
    if facts["keys"]:
        head.append("  keys     {} .. {}".format(*facts["keys"]))
    head += [f"  rejected {n} x {reason}" for reason, n in list(facts["rejected"].items())[:5]]
    table: Table = [
        ("dataset", "shape", "dtype", "chunk", "filters", "range" if facts["full"] else "range (spread rows)")
    ]
    table += [
        (
            d["dataset"],
            shape_text(d["shape"]),
            d["dtype"],
            shape_text(d["chunk"]),
            d["filters"],
            str(d["range"] or ""),
        )
        for d in facts["datasets"]
    ]
    return "\n".join([*head, *provenance_lines(facts["provenance"]), "", *aligned(table)])


def _shards(facts: dict[str, Any]) -> str:
    table: Table = [("shard", "samples", "MB", "sha256", "first key")]
    table += [
        (s["shard"], str(s["samples"]), f"{s['bytes'] / 1e6:.1f}", s["sha256"][:12], s["first_key"])
        for s in facts["shards"]
    ]
    spread = "range" if facts["full"] else "range (spread samples)"
    members: Table = [("samples of", "member", "shape", "dtype", spread)]
    members += [
        (m["samples_of"], m["member"], shape_text(m["shape"]), m["dtype"], str(m["range"])) for m in facts["members"]
    ]
    head = f"{facts['samples']} samples in {len(facts['shards'])} shards, {facts['bytes'] / 1e6:.1f} MB"
    lines = [f"{facts['path']}: {head}", *provenance_lines(facts["provenance"]), "", *aligned(table), ""]
    return "\n".join([*lines, *aligned(members)])


def _tensors(facts: dict[str, Any]) -> str:
    table: Table = [("tensor", "shape", "dtype", "range" if facts["full"] else "range (--full)")]
    table += [(t["tensor"], shape_text(t["shape"]) or "-", t["dtype"], str(t["range"] or "")) for t in facts["tensors"]]
    head = f"{len(facts['tensors'])} tensors, {facts['numbers']} numbers, {facts['bytes'] / 1e6:.1f} MB"
    return "\n".join([f"{facts['path']}: {head}", *provenance_lines(facts["provenance"]), "", *aligned(table)])
