"""Networks that timm lacks, registered into timm."""
