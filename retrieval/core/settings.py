"""Settings: small frozen types, read from TOML, strict about names and types."""

import difflib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from retrieval.core.errors import UsageError
from retrieval.core.secrets import without_secrets


def _file_name(name: str) -> str:
    if not name or Path(name).name != name or name in (".", "..") or not name.isprintable():
        raise ValueError("is no name of a file: no slashes, no control characters, not empty")
    return name


FileName = Annotated[str, AfterValidator(_file_name)]
"""A name that files and folders are called by, which must not lead out of theirs."""
SettingsT = TypeVar("SettingsT", bound="Settings")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


class Settings(BaseModel):
    """Base of every settings type: immutable, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def freed_of_secrets(settings: SettingsT) -> SettingsT:
    """The same values, and no secret in any text of them."""
    return type(settings).model_validate(without_secrets(settings.model_dump(mode="json", by_alias=True)))


def parse_settings(cls: type[SettingsT], values: Mapping[str, Any], source: object) -> SettingsT:
    """Build `cls` from plain values.

    Raises:
        UsageError: a name is unknown (with the nearest known one) or a value breaks its rule.
    """
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError(_explain(cls, error), where=source) from None


def _explain(cls: type[BaseModel], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    # A discriminated union adds its tag to the path; a person never wrote it there.
    path = [str(part) for part in first["loc"] if not _is_tag(cls, str(part))]
    name = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = known_names(cls)
        # A word that is right elsewhere, such as another model's setting, is no help as a suggestion for itself.
        return f"unknown setting '{name}'" + ("; it belongs elsewhere" if path[-1] in known else did_you_mean(path[-1], known))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    # A whole table is no value that a person could find in a line.
    value = "" if first["type"] == "missing" or isinstance(first["input"], Mapping) else f" = {first['input']!r}"
    setting = f"setting '{name}'{value}: " if name else ""
    return f"{setting}{first['msg'].removeprefix('Value error, ')}{more}"


def known_names(cls: type[BaseModel]) -> set[str]:
    """Every setting name in a settings type and the types nested in it."""
    names: set[str] = set()
    for name, field in cls.model_fields.items():
        names.add(field.alias or name)
        for inner in _nested(field.annotation):
            names |= known_names(inner)
    return names


def _nested(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _nested(argument)


def _is_tag(cls: type[BaseModel], part: str) -> bool:
    tags = ("name", "kind")
    return part in {str(inner.model_fields[tag].default) for inner in _all_nested(cls) for tag in tags if tag in inner.model_fields}


def _all_nested(cls: type[BaseModel]) -> Iterable[type[BaseModel]]:
    for field in cls.model_fields.values():
        for inner in _nested(field.annotation):
            yield inner
            yield from _all_nested(inner)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the known names when none is near, or nothing when there are none."""
    candidates = sorted(set(known))
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(candidates)}" if candidates and len(candidates) <= 12 else ""


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as plain values, `${NAME}` and `${NAME:-default}` replaced from the environment.

    Raises:
        UsageError: the file is missing, is not TOML, or names an unset variable.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError("no such file", where=path, remedy="check the path; recipes lie in pipelines/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=path) from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"is not valid TOML: {error}", where=path) from None
    expanded: dict[str, Any] = _expand(values, path)
    return expanded


def _expand(value: Any, source: Path) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _variable(match, source), value)
    if isinstance(value, list):
        return [_expand(inner, source) for inner in value]
    if isinstance(value, dict):
        return {key: _expand(inner, source) for key, inner in value.items()}
    return value


def _variable(match: re.Match[str], source: Path) -> str:
    name, default = match.group(1), match.group(2)
    found = os.environ.get(name, default)
    if found is None:
        raise UsageError(f"environment variable {name} is not set", where=source, remedy=f"export {name}=...")
    return found


def with_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy with every `a.b=value` applied; the value is read as TOML, and as text where it is not.

    Raises:
        UsageError: an override has no `=`, or its path goes through something that is no table.
    """
    return with_values(values, parse_overrides(overrides), "--set")


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Dotted path -> value of `a.b=value` texts; the last one wins.

    Raises:
        UsageError: an override has no `=`.
    """
    found: dict[str, Any] = {}
    for override in overrides:
        name, equals, text = override.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"'{override}' is not NAME=VALUE", where="--set", remedy="write --set train.steps=100")
        found.pop(name.strip(), None)
        found[name.strip()] = _toml_value(text.strip())
    return found


def with_values(values: Mapping[str, Any], changes: Mapping[str, Any], source: object) -> dict[str, Any]:
    """A copy with the value at every dotted path of `changes` put in place; `source` is who asked for it.

    Raises:
        UsageError: a path goes through something that is no table.
    """
    result: dict[str, Any] = json.loads(json.dumps(values, default=str))
    for name, value in changes.items():
        _assign(result, name.split("."), value, source)
    return result


def _assign(values: dict[str, Any], path: list[str], value: Any, source: object) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UsageError(f"'{'.'.join(path)}' goes through '{part}', which is a value", where=source)
    values[path[-1]] = value


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def fingerprint(value: Any) -> str:
    """The first 16 hex digits of the sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]
