"""Networks that timm lacks."""
