"""Download from and upload to the Hugging Face Hub; its client's errors become HubErrors."""
