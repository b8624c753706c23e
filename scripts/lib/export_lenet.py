"""Exports an untrained LeNet-5 to the path in argv[1]."""

import sys

import torch

import convship
from convship.models import LeNet5

torch.manual_seed(0)
preprocess = convship.Preprocess(32, channels=1, mean=[0.5], std=[0.25])
samples = [torch.randint(0, 256, (1, 28, 28), dtype=torch.uint8) for _ in range(2)]
convship.export_model(LeNet5(), sys.argv[1], samples=samples, preprocess=preprocess)
