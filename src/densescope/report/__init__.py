"""Records become one self-contained HTML file."""

from densescope.report.data import ReportData as ReportData
from densescope.report.data import build_report_data as build_report_data
from densescope.report.data import preview_names as preview_names
from densescope.report.page import render_report as render_report
from densescope.report.page import write_report as write_report
from densescope.report.previews import Previews as Previews
