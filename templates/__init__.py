"""Data, installed as package data: BPS templates, pipelines, cameras."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent
