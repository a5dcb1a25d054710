#!/usr/bin/env python3
"""Tests of profile_parts.py without a GPU."""
import unittest

import profile_parts

PROFILE = """100.0 ms of 900.0 ms traced; GPU busy 95.0%, gaps above 20 us 1.0%

| kernel | calls | total ms | share | mean us | longest us |
|---|---|---|---|---|---|
| lk::cuda::attention_rows_kernel<1, 4, 16, true>(lk::cuda::AttentionWork) | 320 | 20.00 | 20.0% | 62.5 | 70.0 |
| lk::cuda::attention_rows_kernel<1, 4, 8, false>(lk::cuda::AttentionWork) | 320 | 10.00 | 10.0% | 31.2 | 35.0 |
| nvjet_hsh_128x64_64x8_2x1_v_bz_TNT | 320 | 30.00 | 30.0% | 93.7 | 99.0 |
| lk::cuda::embed_kernel<(lk::WeightType)1>(unsigned char const*, unsigned long) | 10 | 1.00 | 1.0% | 100.0 | 100.0 |
| lk::cuda::key_tiles_kernel<2, 32, 128>(lk::cuda::SideShape) | 2 | 6.00 | 6.0% | 3000.0 | 3100.0 |
| lk::cuda::value_tiles_kernel<128, 2>(lk::cuda::SideShape) | 2 | 4.00 | 4.0% | 2000.0 | 2100.0 |
| lk::cuda::new_kernel<3>(int) | 1 | 2.00 | 2.0% | 2000.0 | 2000.0 |
| [copy host to device] | 30 | 0.50 | 0.5% | 16.7 | 20.0 |
"""


class ProfileTable(unittest.TestCase):
    def test_kernels_are_summed_by_part(self):
        wall, busy, kernels = profile_parts.read_profile(PROFILE)
        self.assertEqual((wall, busy, len(kernels)), (100.0, 0.95, 8))
        sums, unknown = profile_parts.sum_parts(kernels)
        self.assertEqual(unknown, ["lk::cuda::new_kernel<3>(int)"])
        self.assertEqual(sums["attention: ring"], 20)
        self.assertEqual(sums["attention: pages"], 10)
        self.assertEqual(sums["GEMM"], 30)
        self.assertEqual(sums["flush"], 10)
        self.assertEqual(sums["copies"], 0.5)
        self.assertEqual(sum(sums.values()), sum(ms for _, _, ms in kernels))

    def test_kernels_with_wgmma_have_their_part(self):
        for name in ("multiply_few", "multiply_quantized", "multiply_ordered"):
            self.assertEqual(profile_parts.part_of(f"lk::cuda::{name}_wgmma_kernel<int>(int)"), "GEMM")

    def test_the_table_has_a_row_per_case(self):
        text = profile_parts.table([("b64", PROFILE), ("again", PROFILE)])
        header, _, row, *_ = text.splitlines()
        cells = dict(zip(header.split(" | "), row.split(" | ")))
        self.assertEqual(cells["| case"], "| b64")
        self.assertEqual(cells["passes"], "10")
        self.assertEqual(cells["us a pass"], "10000")
        self.assertEqual(cells["GEMM"], "30.0%")
        self.assertEqual(cells["other"], "2.0%")
        self.assertEqual(cells["gaps"], "5.0%")
        # Two flushes of 5 ms each; a step without one takes 9 ms.
        self.assertEqual(cells["a flush adds |"], "55.6% |")
        self.assertIn("In no part: lk::cuda::new_kernel<3>(int)", text)

    def test_another_file_is_refused(self):
        with self.assertRaises(SystemExit):
            profile_parts.read_profile("| kernel |")


if __name__ == "__main__":
    unittest.main()
