"""The notebooks of the course: every paper once, and the bases the papers build on."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One notebook: `chapters/chapter/slug.ipynb`; `paper` is False for bases."""

    chapter: str
    slug: str
    title: str
    paper: bool = True


def _bases(chapter: str, *notebooks: tuple[str, str]) -> list[Entry]:
    return [Entry(chapter, slug, title, paper=False) for slug, title in notebooks]


def _papers(chapter: str, *notebooks: tuple[str, str]) -> list[Entry]:
    return [Entry(chapter, slug, title) for slug, title in notebooks]


ENTRIES: list[Entry] = [
    *_bases(
        "00_start",
        ("tour", "A tour of the course"),
        ("views_and_data", "Views and data"),
        ("measuring_representations", "Measuring representations"),
        ("attention_probes", "Attention probes"),
        ("object_binding_probes", "Object-binding probes"),
        ("scaling", "Scaling: what a step costs"),
    ),
    *_bases(
        "01_contrastive",
        ("contrastive_family", "Contrastive and clustering methods: the family"),
        ("simclr_moco_byol", "SimCLR, MoCo, BYOL, SimSiam, Barlow Twins, VICReg"),
    ),
    *_papers(
        "01_contrastive",
        ("ebm_vs_cl", "EBMs vs. CL: Exploring Self-Supervised Visual Pretraining for Visual Question Answering"),
        ("transitive_invariance", "Transitive Invariance for Self-supervised Visual Representation Learning"),
        ("look", "Rethinking Supervised Pre-training for Better Downstream Transferring"),
    ),
    *_papers(
        "02_clustering",
        ("deepercluster", "Unsupervised Pre-Training of Image Features on Non-Curated Data"),
        ("swav", "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments"),
        ("seer", "Self-supervised Pretraining of Visual Features in the Wild"),
        ("pass_dataset", "PASS: An ImageNet replacement for self-supervised pretraining without humans"),
    ),
    *_bases("03_self_distillation", ("dino", "DINO: self-distillation with no labels")),
    *_papers(
        "03_self_distillation",
        ("mugs", "Mugs: A Multi-Granular Self-Supervised Learning Framework"),
        ("histopathology_dino", "Self-Supervised Vision Transformers Learn Visual Concepts in Histopathology"),
    ),
    *_bases(
        "04_masked",
        ("masked_family", "Masked and predictive methods: the family"),
        ("mae", "MAE: masked autoencoders"),
    ),
    *_papers(
        "04_masked",
        ("beit", "BEiT: BERT Pre-Training of Image Transformers"),
        ("maskfeat", "Masked Feature Prediction for Self-Supervised Visual Pre-Training"),
        (
            "data2vec2",
            "Efficient Self-supervised Learning with Contextualized Target Representations for Vision, Speech and "
            "Language",
        ),
        ("selfie", "Selfie: Self-supervised Pretraining for Image Embedding"),
    ),
    *_papers(
        "05_predictive",
        (
            "cnn_jepa",
            "CNN-JEPA: Self-Supervised Pretraining Convolutional Neural Networks Using Joint Embedding Predictive "
            "Architecture",
        ),
        ("lejepa", "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics"),
        ("nepa", "Next-Embedding Prediction Makes Strong Vision Learners"),
        ("arm_mamba", "Autoregressive Pretraining with Mamba in Vision"),
    ),
    *_papers(
        "06_objects_and_dense",
        ("orl", "Unsupervised Object-Level Representation Learning from Scene Images"),
        ("univip", "UniVIP: A Unified Framework for Self-Supervised Visual Pre-training"),
        ("detcon", "Efficient Visual Pretraining with Contrastive Detection"),
        ("decoder_denoising", "Decoder Denoising Pretraining for Semantic Segmentation"),
        ("glare", "Enhancing Semantic Segmentation with Continual Self-Supervised Pre-training"),
    ),
    *_papers(
        "07_video",
        ("cvrl", "Spatiotemporal Contrastive Video Representation Learning"),
        ("rspnet", "RSPNet: Relative Speed Perception for Unsupervised Video Representation Learning"),
        ("dora", "Is ImageNet worth 1 video? Learning strong image encoders from 1 long unlabelled video"),
    ),
    *_papers(
        "08_supervision",
        ("deit3", "DeiT III: Revenge of the ViT"),
        (
            "sam_vit",
            "When Vision Transformers Outperform ResNets without Pre-training or Strong Data Augmentations",
        ),
        ("visual_atoms", "Visual Atoms: Pre-training Vision Transformers with Sinusoidal Waves"),
        ("exploring_wsl", "Exploring the Limits of Weakly Supervised Pretraining"),
        ("swag", "Revisiting Weakly Supervised Pre-Training of Visual Perception Models"),
        (
            "label_noise_nmtune",
            "Understanding and Mitigating the Label Noise in Pre-training on Downstream Tasks",
        ),
        (
            "heuristic_multitask",
            "Heuristic Vision Pre-Training with Self-Supervised and Supervised Multi-Task Learning",
        ),
    ),
    *_bases("09_vision_language", ("clip", "CLIP and SigLIP: contrastive language-image pre-training")),
    *_papers(
        "09_vision_language",
        (
            "ft_clip",
            "CLIP Itself is a Strong Fine-tuner: Achieving 85.7% and 88.0% Top-1 Accuracy with ViT-B and ViT-L on "
            "ImageNet",
        ),
        ("few_shot_adaptation", "Few-shot Adaptation of Multi-modal Foundation Models: A Survey"),
    ),
    *_papers(
        "10_generative",
        (
            "epg_pixel_generation",
            "Advancing End-to-End Pixel Space Generative Modeling via Self-supervised Pre-training",
        ),
    ),
    *_papers(
        "11_domains",
        ("pathology_benchmark", "Benchmarking Self-Supervised Learning on Diverse Pathology Datasets"),
        (
            "ssl4eo_s12",
            "SSL4EO-S12: A Large-Scale Multi-Modal, Multi-Temporal Dataset for Self-Supervised Learning in Earth "
            "Observation",
        ),
        (
            "surgenet",
            "Exploring the Effect of Dataset Diversity in Self-Supervised Learning for Surgical Computer Vision",
        ),
        ("plankton_mae", "Self-Supervised Pretraining for Fine-Grained Plankton Recognition"),
        ("precision_at_scale", "Precision at Scale: Domain-Specific Datasets On-Demand"),
    ),
    *_papers(
        "12_emergence",
        ("object_binding", "Does Object Binding Naturally Emerge in Large Pretrained Vision Transformers?"),
        ("dependencyvit", "Visual Dependency Transformers: Dependency Tree Emerges from Reversed Attention"),
    ),
    *_bases("12_emergence", ("leaderboard", "Leaderboard: all checkpoints, all probes")),
]
