"""Model cards: README.md of a checkpoint, with the metadata that the Hugging Face Hub reads."""

import json
import os
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

README = "README.md"
RESULTS = "results.json"  # written by `f2d eval`
TASK = "image-to-image"
TAGS = {"low": "low-light-enhancement", "haze": "dehazing", "rain": "deraining", "snow": "desnowing"}
TAGS |= {"noise": "denoising", "blur": "deblurring", "jpeg": "jpeg-artifact-removal"}
UNKNOWN = "Not stated."

# Jinja's tags leave blank lines, which Markdown does not show.
TEMPLATE = """---
{{ card_data }}
---

# {{ name }}

{{ title }}, {{ "{:,}".format(parameters) }} parameters, for images of any size. It restores {{ restores }}.
{% if description %}
{{ description }}
{% endif %}
## How to use it

```python
import f2d

restored = f2d.load("{{ source }}")("photo.jpg").image
```

On the command line: `f2d restore photo.jpg -o restored.jpg --model {{ source }}`. For the network itself, to train or
inspect it: `from f2d.nets import {{ class_name }}; net = {{ class_name }}.from_pretrained("{{ source }}")`.
The files are `config.json` and `model.safetensors`; nothing in them can run code.

## Training data

{{ training_data }}

## Results
{% if results %}
{{ results.title }}, {{ results.pictures }} images, measured by `f2d eval`{{ results.how }}:

| | degraded | restored |
|---|---:|---:|
{% for row in results.rows -%}
| {{ row.name }} | {{ row.degraded }} | {{ row.restored }} |
{% endfor %}{% else %}
No results are stated.
{% endif %}
## Limits

{{ limits }}

## Source

{{ paper }}. The licence of these weights is {{ license }}; the code is MIT-licensed.
"""


class Described(Protocol):
    """The attributes of a network that a card uses: its architecture's TITLE and PAPER, config.factors, parameters."""

    TITLE: ClassVar[str]
    PAPER: ClassVar[str]
    config: Any

    def parameters(self) -> Iterator[Any]: ...


def card(
    net: Described,
    *,
    name: str = "",
    description: str = "",
    license: str = "unknown",
    training_data: str = UNKNOWN,
    limits: str = UNKNOWN,
    evaluation: str | os.PathLike | None = None,
) -> "ModelCard":
    """Return the model card of a network, with its size and the degradations that it restores.

    name: the name to load it by, such as owner/name. license: of the weights, as the Hub abbreviates it. description,
    training_data, limits: Markdown. evaluation: a folder of `f2d eval`, whose results become a table and the Hub's
    metadata. Raises FileNotFoundError if that folder has no results, and ValueError if they are damaged.
    """
    from huggingface_hub import ModelCard, ModelCardData

    factors, title = net.config.factors, net.TITLE
    results = None if evaluation is None else _Results(Path(evaluation))
    tags = [title.lower().replace("²", "2"), "image-restoration", *(TAGS.get(factor, factor) for factor in factors)]
    tags += ["model_hub_mixin", "pytorch_model_hub_mixin"]
    data: dict[str, Any] = {"license": license, "library_name": "f2d", "pipeline_tag": TASK, "tags": tags}
    if results is not None:
        data |= {"metrics": results.metrics, "model_name": name or title, "eval_results": results.metadata()}
    damage = ", ".join("low light" if factor == "low" else factor for factor in factors)
    overlapping = f"photographs with {damage}, alone and overlapping"
    return ModelCard.from_template(
        ModelCardData(**data),
        template_str=TEMPLATE,
        name=name or title,
        source=name or "this-folder",
        title=title,
        class_name=type(net).__name__,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        restores=overlapping if factors else "what its training data has",
        description=description,
        training_data=training_data,
        limits=limits,
        results=results,
        paper=net.PAPER,
    )


class _Results:
    """The overall row of an evaluation folder, as a table and as the Hub's metadata."""

    def __init__(self, folder: Path):
        file = folder / RESULTS
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            settings, row = found["settings"], found["rows"][-1]
            measures = [measure for measure in settings["measures"] if measure["key"] in row["values"]]
            self.title, self.pictures = found["title"], row["images"]
            self._dataset = settings["data"].partition("=")[0]
            self._measured = [(m, row["input"][m["key"]], row["values"][m["key"]]) for m in measures]
            told = ", ".join(f"{key} {value}" for key, value in settings["options"].items() if value is not None)
            categories = len(row["categories"])
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder} has no {RESULTS}, which f2d eval ... -o {folder} writes") from None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is not what f2d eval writes ({type(error).__name__}: {error})") from None
        self.how = (f" ({told})" if told else "") + (f", the mean of {categories} categories" if categories > 1 else "")

    @property
    def metrics(self) -> list[str]:
        """The Hub's short names: the first word of a key such as "psnr rgb 8bit"."""
        return list(dict.fromkeys(measure["key"].split()[0] for measure, *_ in self._measured))

    @property
    def rows(self) -> list[dict[str, str]]:
        """Return the rows of the table, one for each measure."""
        return [
            {
                "name": f"{m['title']} ({m['unit']})" if m["unit"] else m["title"],
                "degraded": f"{degraded:.{m['digits']}f}",
                "restored": f"{restored:.{m['digits']}f}",
            }
            for m, degraded, restored in self._measured
        ]

    def metadata(self) -> list:
        """Return `EvalResult`s; infinite and undefined values are omitted, since the Hub rejects them."""
        from huggingface_hub import EvalResult

        return [
            EvalResult(
                task_type=TASK,
                dataset_type=self._dataset,
                dataset_name=self.title,
                metric_type=m["key"].split()[0],
                metric_name=m["title"],
                metric_value=round(restored, m["digits"]),
            )
            for m, _, restored in self._measured
            if isfinite(restored)
        ]
