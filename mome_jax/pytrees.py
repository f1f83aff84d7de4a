"""Dataclasses as pytrees."""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

from jax import tree_util

_Class = TypeVar("_Class", bound=type)


def static(**options: Any) -> Any:
    """A field that is part of the structure of a `pytree` and must be hashable; options as for `dataclasses.field`."""
    return dataclasses.field(metadata={"static": True}, **options)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static))
def pytree(cls: _Class) -> _Class:
    """A frozen dataclass as a pytree; `static` fields are part of its structure.

    Unlike `jax.tree_util.register_dataclass` it does not run `__init__` when JAX puts an instance together, because
    what JAX puts in may be a shape, a flag or a placeholder, which is not what the annotations promise to callers.
    """
    made = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(made)
    names = [field.name for field in fields if not field.metadata.get("static", False)]
    static = [field.name for field in fields if field.metadata.get("static", False)]

    def flatten_with_keys(tree: Any) -> tuple[Any, Any]:
        children = [(tree_util.GetAttrKey(name), getattr(tree, name)) for name in names]
        return children, tuple(getattr(tree, name) for name in static)

    def flatten(tree: Any) -> tuple[Any, Any]:
        return [getattr(tree, name) for name in names], tuple(getattr(tree, name) for name in static)

    def unflatten(auxiliary: Any, children: Any) -> Any:
        tree = object.__new__(made)
        for name, value in zip((*names, *static), (*children, *auxiliary), strict=True):
            object.__setattr__(tree, name, value)
        return tree

    tree_util.register_pytree_with_keys(made, flatten_with_keys, unflatten, flatten)
    return made
