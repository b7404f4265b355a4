"""A session in the place of another library's embedding model: its method names, nothing imported.

    SentenceEncoder(session).encode(["some text", ...])            as sentence-transformers
    LangChainEmbeddings(session).embed_query("some text")          as LangChain

What an argument asks for is done or refused, never ignored.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgessl.errors import RecipeError
from edgessl.spec import TextSpec

if TYPE_CHECKING:
    from edgessl.runtimes.session import Session

Vectors = npt.NDArray[np.float32]

_BLOCK = 1000  # items between two signs of progress
_QUERY = ("query",)
_DOCUMENT = ("document", "passage", "corpus")
# What sentence-transformers' encode takes, with the only value that makes sense here.
_FIXED: dict[str, Any] = {
    "output_value": "sentence_embedding",
    "precision": "float32",
    "convert_to_numpy": True,
    "convert_to_tensor": False,
    "device": None,
    "pool": None,
    "chunk_size": None,
}


class SentenceEncoder:
    """The methods of a ``SentenceTransformer`` that take and give plain data."""

    similarity_fn_name = "cosine"

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def max_seq_length(self) -> int | None:
        """Tokens that a text is cut at; None for other bundles."""
        spec = self.session.manifest.encoder.preprocessing
        return spec.max_length if isinstance(spec, TextSpec) else None

    @property
    def prompts(self) -> dict[str, str]:
        """The prompts that the bundle names."""
        return _prompts(self.session)

    def get_embedding_dimension(self) -> int | None:
        """Width of a vector."""
        return self.session.manifest.encoder.dimensions

    get_sentence_embedding_dimension = get_embedding_dimension

    def encode(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        *,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        **fixed: Any,
    ) -> Vectors:
        """Embed one item, giving ``(dim,)`` float32, or a list of them, giving ``(n, dim)``.

        Args:
            inputs: what the bundle embeds; a string, an image or a path is one item.
            prompt_name, prompt: goes before every text: one of the bundle's, or a text.
            batch_size: must be positive; how items are batched is the session's own business (by
                tokens, see ``batch_tokens``) and moves no vector.
            show_progress_bar: rate and time left on stderr.
            normalize_embeddings: scale to unit length what is not so already.
            truncate_dim: keep the first so many values, before that.
            **fixed: sentence-transformers' other arguments, at their defaults.

        Raises:
            RecipeError: an argument, or a value of one, that this encoder does not have; an item
                that is not what the bundle takes.
        """
        for name, value in fixed.items():
            if name not in _FIXED:
                raise RecipeError(f"encode() has no argument {name!r} here.")
            if value != _FIXED[name]:
                raise RecipeError(_refusal(name, value))
        if batch_size < 1:
            raise RecipeError(f"batch_size must be at least 1, not {batch_size}.")
        items, single = _listed(inputs, self.session.manifest.encoder.task)
        session = _prompted(self.session, prompt_name, prompt)
        vectors = _with_progress(session, items) if show_progress_bar else session.embed(items)
        if truncate_dim is not None:
            width = vectors.shape[1]
            if not 1 <= truncate_dim <= width:
                raise RecipeError(f"truncate_dim must be 1 to {width}, not {truncate_dim}.")
            vectors = vectors[:, :truncate_dim]
        if normalize_embeddings:
            vectors = _unit(vectors)
        found: Vectors = vectors[0] if single else vectors
        return found

    def encode_query(self, inputs: Any, **arguments: Any) -> Vectors:
        """``encode`` with the bundle's prompt for queries, if it has one."""
        return self.encode(inputs, **_named(self.session, _QUERY, arguments))

    def encode_document(self, inputs: Any, **arguments: Any) -> Vectors:
        """``encode`` with the bundle's prompt for documents, if it has one."""
        return self.encode(inputs, **_named(self.session, _DOCUMENT, arguments))

    def similarity(self, one: Any, other: Any) -> Vectors:
        """Cosines ``(n, m)`` of the vectors ``(n, dim)`` and ``(m, dim)``."""
        cosines: Vectors = _unit(np.atleast_2d(one)) @ _unit(np.atleast_2d(other)).T
        return cosines

    def similarity_pairwise(self, one: Any, other: Any) -> Vectors:
        """Cosine of each row of the one with the same row of the other: ``(n,)``."""
        cosines: Vectors = (_unit(np.atleast_2d(one)) * _unit(np.atleast_2d(other))).sum(axis=1)
        return cosines


class LangChainEmbeddings:
    """LangChain's ``Embeddings``: lists of floats, also asynchronously.

    An ``isinstance`` check of LangChain's passes where it was imported before this was made.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._documents = session.using(**_named(session, _DOCUMENT, {}))
        self._queries = session.using(**_named(session, _QUERY, {}))
        langchain = sys.modules.get("langchain_core.embeddings")
        if langchain is not None:
            langchain.Embeddings.register(type(self))

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """A vector for each text, with the bundle's prompt for documents, if it has one."""
        return _floats(self._documents.embed(list(texts)))

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question, with the bundle's prompt for those, if it has one."""
        return _floats(self._queries.embed([text]))[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """``embed_documents`` for an event loop."""
        return _floats(await self._documents.aembed(list(texts)))

    async def aembed_query(self, text: str) -> list[float]:
        """``embed_query`` for an event loop."""
        return _floats(await self._queries.aembed([text]))[0]


def _prompts(session: Session) -> dict[str, str]:
    spec = session.manifest.encoder.preprocessing
    return dict(spec.prompts) if isinstance(spec, TextSpec) else {}


def _named(session: Session, names: Iterable[str], arguments: dict[str, Any]) -> dict[str, Any]:
    """*arguments*, with the first of *names* that the bundle has as its prompt, unless they say."""
    if arguments.get("prompt") is not None or arguments.get("prompt_name") is not None:
        return arguments
    known = _prompts(session)
    return next(({**arguments, "prompt_name": name} for name in names if name in known), arguments)


def _prompted(session: Session, name: str | None, prompt: str | None) -> Session:
    if prompt is not None:  # of the two, sentence-transformers takes this one
        return session.using(prompt=prompt)
    return session if name is None else session.using(prompt_name=name)


def _listed(inputs: Any, task: str) -> tuple[Any, bool]:
    """*inputs* as a list, and whether it was one item."""
    if isinstance(inputs, np.ndarray):
        several = inputs.ndim == (1 if task == "text" else 4)
        if task == "text" and several:
            return inputs.tolist(), False
        return (inputs, False) if several else ([inputs], True)
    if isinstance(inputs, (str, bytes)) or (
        task != "text" and not isinstance(inputs, (list, tuple))
    ):
        return [inputs], True
    return (inputs if isinstance(inputs, (list, tuple)) else list(inputs)), False


def _with_progress(session: Session, items: Any) -> Vectors:
    from edgessl.progress import Steps

    blocks = [items[start : start + _BLOCK] for start in range(0, len(items), _BLOCK)]
    parts: list[Vectors] = []
    with Steps() as steps:
        steps("embedding")
        for part in session.embed_blocks(blocks or [[]]):
            parts.append(part)
            steps.count(sum(map(len, parts)), len(items), "items")
    return np.concatenate(parts)


def _unit(vectors: Any) -> Vectors:
    array = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(array, axis=-1, keepdims=True)
    unit: Vectors = array / np.maximum(lengths, 1e-12)
    return unit


def _floats(vectors: Vectors) -> list[list[float]]:
    rows: list[list[float]] = vectors.tolist()
    return rows


def _refusal(name: str, value: Any) -> str:
    if name.startswith("convert_to") or name == "output_value":
        hint = "It gives one numpy array of vectors: torch.from_numpy(...) makes a tensor."
    elif name == "precision":
        hint = "edgessl embed --dtype stores vectors in fewer bits."
    else:
        hint = "edgessl.load(BUNDLE, device=, mode=, threads=, streams=) says what runs, and where."
    return f"encode() does not take {name}={value!r} here. {hint}"
