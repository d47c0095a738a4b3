"""Options that go together reach a verb as one argument."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["gather"]

F = TypeVar("F", bound=Callable[..., Any])


def gather(name: str, make: Callable[..., Any], *options: Callable[[Any], Any]) -> Callable[[F], F]:
    """A decorator with several options, given to the verb as its argument `name`.

    `make` is called with the options' values by the names of its parameters, so a new
    option needs an entry here and a parameter there, and no verb repeats either.
    `--help` shows the options in the reverse of this order, as click's decorators do.
    """
    wanted = list(inspect.signature(make).parameters)

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def verb(**values: Any) -> Any:
            made = make(**{key: values.pop(key) for key in wanted})
            return function(**{name: made}, **values)

        decorated: Any = verb
        for option in options:
            decorated = option(decorated)
        result: F = decorated
        return result

    return decorate
